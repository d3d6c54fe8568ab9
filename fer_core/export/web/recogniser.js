// The worker as a function: a picture in, its faces with their label distributions out.

export class Recogniser {
  #worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
  #waiting = new Map();
  #last = 0;

  /** Resolves when the model is loaded; rejects with what kept it from that. */
  ready = new Promise((resolve, reject) => {
    this.#worker.onerror = (event) => reject(new Error(event.message || "this browser cannot start the page's worker"));
    this.#worker.onmessage = ({ data }) => {
      if (data.ready) resolve();
      else if (data.broken) reject(new Error(data.broken));
      else this.#settle(data);
    };
  });

  /**
   * @param {ImageBitmap} bitmap handed over, not usable afterwards
   * @param {"picture"|"frame"} kind
   * @param {"find"|"aligned"|{x, y, side}} where
   * @returns {Promise<{faces: {x, y, side, probabilities: number[]}[], found, width, height, findingMs, modelMs}>}
   */
  look(bitmap, kind, where) {
    const id = ++this.#last;
    this.#worker.postMessage({ id, bitmap, kind, where }, [bitmap]);
    return new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
  }

  #settle({ id, result, error }) {
    const { resolve, reject } = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (error) reject(new Error(error));
    else resolve(result);
  }
}
