// A picture as the rest of fer decodes it, see openface/decoding.py: upright as EXIF says, its colours as they are stored
// without any profile, in eight bits, transparent parts upon white.

import { splitExif, upright } from "./webp.js";

const LARGEST = 50_000_000; // Pixels; more is taken for a decompression bomb.
const LOST = 64; // Of 16 bits the browser keeps the upper 8; a picture below this value has lost most of what it had.

/**
 * @param {File} file
 * @returns {Promise<ImageBitmap>}
 * @throws {Error} whose message is the rest of a sentence that begins with the file's name
 */
export async function decode(file) {
  const head = new Uint8Array(await file.slice(0, 25).arrayBuffer());
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

function isWebp(head) {
  return String.fromCharCode(...head.slice(0, 4), ...head.slice(8, 12)) === "RIFFWEBP";
}

/** A PNG says in the 25th byte how many bits a channel has. */
function isDeepPng(head) {
  return head[0] === 0x89 && head[1] === 0x50 && head[24] === 16;
}

function uponWhite(bitmap, orientation, deep) {
  const { width, height } = bitmap;
  const canvas = orientation > 4 ? new OffscreenCanvas(height, width) : new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.setTransform(...upright(orientation, width, height));
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  if (deep && isDark(context.getImageData(0, 0, canvas.width, canvas.height).data)) {
    throw new Error("has 16 bits a channel and uses few of them, which a browser shows black; save it in 8 bits.");
  }
  return canvas.transferToImageBitmap();
}

function isDark(rgba) {
  for (let at = 0; at < rgba.length; at++) if (at % 4 !== 3 && rgba[at] >= LOST) return false;
  return true;
}
