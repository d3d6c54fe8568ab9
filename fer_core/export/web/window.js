// jsfeat, of 2012, leaves itself on `window`; a worker has only `self`. Imported before it.
globalThis.window ??= globalThis;
