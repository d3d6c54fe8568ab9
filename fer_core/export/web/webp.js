// Browsers do not agree on whether a WebP is turned as its EXIF says: here what it says, and the picture without it.

/**
 * @param {ArrayBuffer} buffer a whole file
 * @returns {{orientation: number, picture: Blob}} 1 to 8 as in EXIF; the WebP without its EXIF
 */
export function splitExif(buffer) {
  const view = new DataView(buffer);
  const parts = [buffer.slice(0, 12)];
  let orientation = 1;
  for (let at = 12; at + 8 <= buffer.byteLength; ) {
    const end = Math.min(buffer.byteLength, at + 8 + view.getUint32(at + 4, true) + (view.getUint32(at + 4, true) & 1));
    const name = String.fromCharCode(...new Uint8Array(buffer, at, 4));
    if (name === "EXIF") orientation = orientationIn(new DataView(buffer, at + 8, end - at - 8));
    else parts.push(name === "VP8X" ? withoutFlag(buffer.slice(at, end)) : buffer.slice(at, end));
    at = end;
  }
  new DataView(parts[0]).setUint32(4, parts.reduce((sum, part) => sum + part.byteLength, 0) - 8, true);
  return { orientation, picture: new Blob(parts, { type: "image/webp" }) };
}

const EXIF_FLAG = 0x08;

function withoutFlag(chunk) {
  new Uint8Array(chunk)[8] &= ~EXIF_FLAG;
  return chunk;
}

/** The tag 0x0112 of the first directory; 1 where there is none, or nothing that can be read. */
function orientationIn(exif) {
  try {
    const start = exif.getUint32(0) === 0x45786966 ? 6 : 0; // "Exif" and two zeros, which some programs put before it.
    const little = exif.getUint16(start) === 0x4949;
    const directory = start + exif.getUint32(start + 4, little);
    for (let entry = 0; entry < exif.getUint16(directory, little); entry++) {
      const at = directory + 2 + 12 * entry;
      const value = exif.getUint16(at + 8, little);
      if (exif.getUint16(at, little) === 0x0112) return value >= 1 && value <= 8 ? value : 1;
    }
  } catch {
    // It ends before what it promises.
  }
  return 1;
}

/** What brings a stored picture of this width and height upright: a canvas's transform, by orientation. */
export function upright(orientation, width, height) {
  return [
    [1, 0, 0, 1, 0, 0],
    [-1, 0, 0, 1, width, 0],
    [-1, 0, 0, -1, width, height],
    [1, 0, 0, -1, 0, height],
    [0, 1, 1, 0, 0, 0],
    [0, 1, -1, 0, height, 0],
    [0, -1, -1, 0, height, width],
    [0, -1, 1, 0, 0, width],
  ][orientation - 1];
}
