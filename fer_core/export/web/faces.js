// Finds upright frontal faces: OpenCV's Haar cascade, scanned over an image pyramid as OpenCV does it,
// since the model's training faces were cut by just such boxes.

import "./window.js";
import "./vendor/jsfeat-min.js";
import "./vendor/frontalface.js";

const { haar, imgproc } = globalThis.jsfeat;
const CASCADE = haar.frontalface;
const WINDOW = CASCADE.size[0];
const SMALLEST = 40; // Pixels; below it the cascade sees faces in foliage.
const STEP = 1.1; // Between two levels of the pyramid.

/**
 * How densely windows are laid, and how many must agree on a face. jsfeat moves its windows by two pixels: in a level
 * twice as large, with windows twice as large, that is one pixel, which is what OpenCV does; it takes four times as long.
 */
export const DENSE = { grain: 2, witnesses: 7 };
export const SPARSE = { grain: 1, witnesses: 3 };

/**
 * @param {Uint8Array} grey width x height, row after row
 * @param {{grain: number, witnesses: number}} scan DENSE or SPARSE
 * @returns {{x: number, y: number, side: number}[]} squares in pixels, largest first
 */
export function findFaces(grey, width, height, scan) {
  const windows = [];
  for (let scale = SMALLEST / WINDOW; WINDOW * scale < Math.min(width, height); scale *= STEP) {
    const pixel = scale / scan.grain; // Of the level, in pixels of the picture.
    for (const { x, y, confidence } of windowsAt(pixel, scan.grain, grey, width, height)) {
      windows.push({ x: x * pixel, y: y * pixel, width: WINDOW * scale, height: WINDOW * scale, confidence });
    }
  }
  // group_rectangles adds half a pixel to every mean, for callers that cut decimals off.
  return haar
    .group_rectangles(windows, scan.witnesses)
    .map((box) => ({ x: Math.floor(box.x), y: Math.floor(box.y), side: Math.floor(box.width) }))
    .sort((a, b) => b.side - a.side);
}

/** The cascade's windows of `grain` times its own size, in a level of the pyramid; jsfeat's other scales round too much. */
function windowsAt(pixel, grain, grey, width, height) {
  const [across, down] = [Math.round(width / pixel), Math.round(height / pixel)];
  const size = (across + 1) * (down + 1);
  // In 32 bits the sum of squares of a bright picture would overflow.
  const [sums, squares] = [new Int32Array(size), new Float64Array(size)];
  const level = { cols: across, rows: down, data: resized(grey, width, height, across, down) };
  imgproc.compute_integral_image(level, sums, squares, null);
  return haar.detect_single_scale(sums, squares, null, null, across, down, grain, CASCADE);
}

/** Bilinear, without antialiasing, as OpenCV's detector does it. */
function resized(grey, width, height, across, down) {
  const out = new Uint8Array(across * down);
  for (let row = 0; row < down; row++) {
    const [top, bottom, below] = between(row, height / down, height);
    for (let column = 0; column < across; column++) {
      const [left, right, beside] = between(column, width / across, width);
      const above = grey[top * width + left] * (1 - beside) + grey[top * width + right] * beside;
      const under = grey[bottom * width + left] * (1 - beside) + grey[bottom * width + right] * beside;
      out[row * across + column] = above * (1 - below) + under * below + 0.5;
    }
  }
  return out;
}

function between(index, scale, length) {
  const at = Math.max(0, (index + 0.5) * scale - 0.5);
  const first = Math.min(Math.floor(at), length - 1);
  return [first, Math.min(first + 1, length - 1), at - first];
}
