// Finds faces and runs the model, away from the page's thread, so that the page never stalls.

import { DENSE, SPARSE, findFaces } from "./faces.js";
import * as ort from "./vendor/ort.wasm.min.mjs";

/** The longest side in which faces are looked for, and how thoroughly: a frame of the camera has to be quick. */
const SEARCH = { picture: { longest: 640, scan: DENSE }, frame: { longest: 320, scan: SPARSE } };
const LARGEST_CROP = 1024; // Pixels; the model's input is far smaller.
const MOST_FACES = 12;

// More threads need headers that not every static server sends.
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = new URL("./vendor/", import.meta.url).href;

const session = ort.InferenceSession.create(new URL("./model.onnx", import.meta.url).href);
session.then(warm).then(
  () => self.postMessage({ ready: true }),
  (error) => self.postMessage({ broken: String(error.message ?? error) }),
);

/** The first run takes many times as long as the rest. */
function warm(loaded) {
  return loaded.run({ images: new ort.Tensor("uint8", new Uint8Array(48 * 48 * 3), [1, 48, 48, 3]) });
}

let turn = Promise.resolve();
self.onmessage = ({ data }) => {
  turn = turn.then(() => answer(data));
};

async function answer({ id, bitmap, ...how }) {
  try {
    self.postMessage({ id, result: await look(bitmap, how) });
  } catch (error) {
    self.postMessage({ id, error: String(error.message ?? error) });
  } finally {
    bitmap.close();
  }
}

/**
 * @param {ImageBitmap} bitmap
 * @param {"picture"|"frame"} how.kind
 * @param {"find"|"aligned"|{x, y, side}} how.where look for faces, take the middle square, or this one
 */
async function look(bitmap, { kind, where }) {
  const started = performance.now();
  const all = squaresIn(bitmap, kind, where);
  const squares = all.slice(0, MOST_FACES);
  const found = performance.now();
  const faces = [];
  for (const square of squares) {
    faces.push({ ...square, probabilities: await recognise(bitmap, square) });
  }
  const ended = performance.now();
  return {
    faces,
    found: all.length,
    width: bitmap.width,
    height: bitmap.height,
    findingMs: where === "find" ? found - started : null,
    modelMs: faces.length ? (ended - found) / faces.length : null,
  };
}

function squaresIn(bitmap, kind, where) {
  if (where === "find") return findScaled(bitmap, SEARCH[kind]);
  if (where !== "aligned") return [inside(where, bitmap)];
  const side = Math.min(bitmap.width, bitmap.height);
  return [{ x: (bitmap.width - side) >> 1, y: (bitmap.height - side) >> 1, side }];
}

function findScaled(bitmap, { longest, scan }) {
  const scale = Math.max(1, Math.max(bitmap.width, bitmap.height) / longest);
  const [width, height] = [Math.round(bitmap.width / scale), Math.round(bitmap.height / scale)];
  const rgba = pixels(bitmap, 0, 0, bitmap.width, bitmap.height, width, height);
  const grey = new Uint8Array(width * height);
  for (let from = 0, to = 0; to < grey.length; from += 4, to++) {
    grey[to] = 0.299 * rgba[from] + 0.587 * rgba[from + 1] + 0.114 * rgba[from + 2] + 0.5;
  }
  const found = findFaces(grey, width, height, scan);
  return found.map(({ x, y, side }) => inside({ x: x * scale, y: y * scale, side: side * scale }, bitmap));
}

/** Whole pixels, moved into the picture. */
function inside({ x, y, side }, { width, height }) {
  const whole = Math.max(1, Math.min(Math.round(side), width, height));
  const moved = (at, length) => Math.max(0, Math.min(Math.round(at), length - whole));
  return { x: moved(x, width), y: moved(y, height), side: whole };
}

/** The label distribution of a square; grey, size and normalisation are inside the model. */
async function recognise(bitmap, { x, y, side }) {
  const stored = Math.min(side, LARGEST_CROP);
  const rgba = pixels(bitmap, x, y, side, side, stored, stored);
  const rgb = new Uint8Array(3 * stored * stored);
  for (let from = 0, to = 0; from < rgba.length; from += 4, to += 3) {
    rgb[to] = rgba[from];
    rgb[to + 1] = rgba[from + 1];
    rgb[to + 2] = rgba[from + 2];
  }
  const images = new ort.Tensor("uint8", rgb, [1, stored, stored, 3]);
  const { probabilities } = await (await session).run({ images });
  return Array.from(probabilities.data);
}

let canvas;

/** RGBA of a part of the bitmap, drawn to width x height. */
function pixels(bitmap, x, y, across, down, width, height) {
  canvas ??= new OffscreenCanvas(1, 1);
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, x, y, across, down, 0, 0, width, height);
  return context.getImageData(0, 0, width, height).data;
}
