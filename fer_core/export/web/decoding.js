// A picture as the rest of fer decodes it, see openface/decoding.py: upright as EXIF says, its colours as they are stored
// without any profile, in eight bits, transparent parts upon white.

import { splitExif, upright } from "./webp.js";

const LARGEST = 51_000_000; // Pixels; more is taken for a decompression bomb.
const LOST = 64; // Of 16 bits the browser keeps the upper 8; a picture below this value has lost most of what it had.
const HOT = 0.001; // Share of values that hot pixels may take.
const PNG_END = [0x49, 0x45, 0x4e, 0x44, 0xae, 0x42, 0x60, 0x82];

/**
 * @param {File} file
 * @returns {Promise<ImageBitmap>}
 * @throws {Error} whose message is the rest of a sentence that begins with the file's name
 */
export async function decode(file) {
  const head = new Uint8Array(await file.slice(0, 25).arrayBuffer());
  if (await endsInZeros(file, head)) {
    throw new Error("ends in zeros, and its end is missing; copy or download it anew.");
  }
  let bitmap;
  let orientation = 1;
  let picture = file;
  try {
    if (isWebp(head)) ({ orientation, picture } = splitExif(await file.arrayBuffer()));
    bitmap = await createImageBitmap(picture, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    throw new Error("is no picture that this browser can read.");
  }
  if (bitmap.width * bitmap.height > LARGEST) {
    bitmap.close();
    throw new Error(`has more than ${LARGEST.toLocaleString("en")} pixels.`);
  }
  return isJpeg(head) ? bitmap : uponWhite(bitmap, orientation, isDeepPng(head));
}

function isJpeg(head) {
  return head[0] === 0xff && head[1] === 0xd8;
}

function isPng(head) {
  return head[0] === 0x89 && head[1] === 0x50;
}

function isWebp(head) {
  return String.fromCharCode(...head.slice(0, 4), ...head.slice(8, 12)) === "RIFFWEBP";
}

/** A PNG says in the 25th byte how many bits a channel has. */
function isDeepPng(head) {
  return isPng(head) && head[24] === 16;
}

/** A JPEG or a PNG without an end that zeros fill up; a browser takes them for pixels. */
async function endsInZeros(file, head) {
  if (!isJpeg(head) && !isPng(head)) return false;
  const [last] = new Uint8Array(await file.slice(-1).arrayBuffer());
  if (last !== 0) return false;
  const bytes = new Uint8Array(await file.arrayBuffer());
  return !(isPng(head) ? hasPngEnd(bytes) : hasJpegEnd(bytes));
}

function hasPngEnd(bytes) {
  for (let at = bytes.indexOf(PNG_END[0]); at >= 0; at = bytes.indexOf(PNG_END[0], at + 1)) {
    if (PNG_END.every((byte, place) => bytes[at + place] === byte)) return true;
  }
  return false;
}

/** The end of a thumbnail in one of the segments, which say how long they are, does not count. */
function hasJpegEnd(bytes) {
  for (let at = bytes.indexOf(0xff); at >= 0; at = bytes.indexOf(0xff, at)) {
    const marker = bytes[at + 1];
    if (marker === 0xd9) return true;
    const isSegment = marker > 0x01 && marker < 0xff && !(marker >= 0xd0 && marker <= 0xd8);
    at += isSegment ? 2 + 256 * bytes[at + 2] + bytes[at + 3] : 1;
  }
  return false;
}

function uponWhite(bitmap, orientation, deep) {
  const { width, height } = bitmap;
  const canvas = orientation > 4 ? new OffscreenCanvas(height, width) : new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.setTransform(...upright(orientation, width, height));
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  if (!isSeen(data)) {
    throw new Error("is transparent all over, and a browser forgets such colours; save it without transparency.");
  }
  if (deep && isDark(data)) {
    throw new Error("has 16 bits a channel and uses few of them, which a browser shows black; save it in 8 bits.");
  }
  context.resetTransform();
  context.globalCompositeOperation = "destination-over";
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  return canvas.transferToImageBitmap();
}

function isSeen(rgba) {
  for (let at = 3; at < rgba.length; at += 4) if (rgba[at] > 0) return true;
  return false;
}

/** Of the pixels that are seen, no more values than hot pixels may take reach LOST. */
function isDark(rgba) {
  let [seen, bright] = [0, 0];
  for (let at = 0; at < rgba.length; at += 4) {
    if (rgba[at + 3] === 0) continue;
    seen += 3;
    for (let channel = 0; channel < 3; channel++) bright += rgba[at + channel] >= LOST;
  }
  return bright <= HOT * seen;
}
