// The page: what a person does, and what is shown for it.

import { Answer, certaintyInWords, percent, top } from "./answer.js";
import { cameras, openCamera, whyNot } from "./camera.js";
import { showCard } from "./card.js";
import { decode } from "./decoding.js";
import { Recogniser } from "./recogniser.js";
import { Stage } from "./stage.js";

const SPOKEN_EVERY = 1000; // Milliseconds; a screen reader cannot follow a camera.
const FIGURES_EVERY = 500;
const NO_FACE = "No face found. It should be upright and from the front; or mark it yourself.";

const $ = (id) => document.getElementById(id);
const stage = new Stage({ stage: $("stage"), picture: $("picture"), camera: $("camera"), boxes: $("boxes") }, { picked, marked });
const recogniser = new Recogniser();

let labels = [];
let answer;
let picture = null; // The bitmap that is shown,
let stream = null; // or the camera.
let square = null; // Drawn by hand; in pixels of the picture.
let result = null; // What the worker last said,
let chosen = 0; // and which of its faces the bars are of.
let looking = 0; // Counts what is looked at, so that a late answer to something earlier is not shown.
let lastLook = Promise.resolve();

start();

async function start() {
  try {
    const card = await (await fetch("model.json")).json();
    labels = card.labels;
    answer = new Answer({ heading: $("answer"), certainty: $("certainty"), bars: $("bars") }, labels);
    showCard($("card"), card);
    await recogniser.ready;
  } catch (error) {
    say(`The model could not be started: ${error.message}`);
    return;
  }
  for (const id of ["file", "start"]) $(id).disabled = false;
  listen();
  document.body.dataset.ready = "";
  say("Ready.");
}

function listen() {
  $("file").addEventListener("change", () => {
    if ($("file").files.length) openPicture($("file").files[0]);
    $("file").value = ""; // So that the same file may be chosen again.
  });
  $("start").addEventListener("click", () => (stream ? stopCamera("The camera is off.") : startCamera()));
  $("cameras").addEventListener("change", () => startCamera($("cameras").value));
  $("own").addEventListener("click", () => {
    stage.mark();
    stage.focusFirst();
  });
  $("aligned").addEventListener("change", () => {
    forgetSquare();
    if (picture) lookAtPicture();
  });
  document.addEventListener("paste", (event) => openPicture(event.clipboardData.files[0]));
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      $("stage").classList.toggle("over", kind === "dragover");
      if (kind === "drop") openPicture(event.dataTransfer.files[0]);
    });
  }
}

async function openPicture(file) {
  if (!file) return;
  stopCamera();
  const mine = ++looking;
  let bitmap = null;
  let reason = "";
  try {
    bitmap = await decode(file);
  } catch (error) {
    reason = error.message;
  }
  if (mine !== looking) return bitmap?.close();
  forgetPicture();
  if (!bitmap) {
    stage.empty();
    forgetAnswer();
    say(`${file.name || "What was pasted"} ${reason}`);
    return;
  }
  picture = bitmap;
  stage.showPicture(picture);
  $("own").disabled = false;
  await lookAtPicture();
}

/** One look at a time; whatever changes meanwhile (a square that is dragged) is looked at once, afterwards. */
async function lookAtPicture() {
  const mine = ++looking;
  await lastLook;
  if (mine !== looking) return;
  lastLook = lookOnce(mine);
  await lastLook;
}

async function lookOnce(mine) {
  try {
    const seen = await recogniser.look(await createImageBitmap(picture), "picture", where());
    if (mine === looking) show(seen);
  } catch (error) {
    if (mine === looking) say(`The picture could not be looked at: ${error.message}`);
  }
}

async function startCamera(deviceId) {
  stopCamera();
  const mine = ++looking;
  say("The browser asks whether this page may use the camera.");
  try {
    const opened = await openCamera(deviceId);
    if (mine !== looking) return opened.getTracks().forEach((track) => track.stop());
    stream = opened;
    $("camera").srcObject = stream;
    await $("camera").play();
  } catch (error) {
    if (mine === looking) stopCamera(whyNot(error));
    return;
  }
  forgetPicture();
  forgetAnswer();
  const [track] = stream.getVideoTracks();
  track.addEventListener("ended", () => stopCamera("The camera was taken away."));
  stage.showCamera(track.getSettings().facingMode !== "environment");
  $("start").textContent = "Stop the camera";
  $("own").disabled = false;
  await offerCameras(track.getSettings().deviceId);
  watch(stream);
}

async function offerCameras(current) {
  const found = await cameras();
  $("cameras").replaceChildren(...found.map(({ label, deviceId }, index) => new Option(label || `camera ${index + 1}`, deviceId, false, deviceId === current)));
  $("which").hidden = found.length < 2;
}

function stopCamera(sentence) {
  if (stream) {
    stream.getTracks().forEach((track) => track.stop());
    stream = null;
    $("camera").srcObject = null;
    $("start").textContent = "Start the camera";
    $("which").hidden = true;
    $("rate").textContent = "—";
    stage.empty();
    forgetAnswer();
  }
  looking++;
  if (sentence) say(sentence);
}

/** Frame after frame, each as soon as the one before is done, until the camera stops. */
async function watch(watched) {
  const times = [];
  try {
    while (stream === watched) {
      await nextFrame($("camera"));
      if (stream !== watched) return;
      const seen = await recogniser.look(await createImageBitmap($("camera")), "frame", where());
      if (stream !== watched) return;
      times.push(performance.now());
      if (times.length > 15) times.shift();
      show(seen, times);
    }
  } catch (error) {
    if (stream === watched) stopCamera(`The camera's picture could not be looked at: ${error.message}`);
  }
}

function nextFrame(video) {
  return new Promise((resolve) => (video.requestVideoFrameCallback ? video.requestVideoFrameCallback(resolve) : requestAnimationFrame(resolve)));
}

function where() {
  return square ?? ($("aligned").checked ? "aligned" : "find");
}

function show(seen, times) {
  chosen = times ? nearest(seen.faces, result?.faces[chosen]) : 0;
  result = seen;
  showFaces();
  showFigures(seen, times);
}

/** In a moving picture the chosen face is the one that is where it was. */
function nearest(faces, before) {
  if (!before) return 0;
  const away = (face) => Math.hypot(face.x + face.side / 2 - before.x - before.side / 2, face.y + face.side / 2 - before.y - before.side / 2);
  return faces.reduce((best, face, index) => (away(face) < away(faces[best]) ? index : best), 0);
}

function showFaces() {
  const { faces, found: all } = result;
  const best = faces.map(({ probabilities }) => labels[top(probabilities)]);
  const words = faces.map(({ probabilities }, index) => `${best[index]} ${percent(Math.max(...probabilities))}`);
  stage.place(result, chosen, words, best);
  if (!faces.length) {
    answer.none();
    say(NO_FACE);
    return;
  }
  const { probabilities } = faces[chosen];
  answer.show(probabilities);
  const largest = all > faces.length ? `, the largest of ${all}` : "";
  const sentence = faces.length > 1 ? `${faces.length} faces${largest}; the bars are of number ${chosen + 1}. Click another, or Tab to it.` : found();
  say(sentence, `${best[chosen]}. ${certaintyInWords(probabilities)}.`);
}

function found() {
  if (square) return "Your square: drag it, or draw another. Arrow keys move it, + and − change its size, Escape takes it away.";
  return $("aligned").checked ? "Taken as a face." : "One face.";
}

let figuresAt = 0;
function showFigures({ modelMs, findingMs }, times) {
  const now = performance.now();
  if (times && now - figuresAt < FIGURES_EVERY) return; // Figures that change faster cannot be read.
  figuresAt = now;
  const milliseconds = (ms) => (ms == null ? "—" : `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`);
  $("latency").textContent = milliseconds(modelMs);
  $("finding").textContent = milliseconds(findingMs);
  const rate = times?.length > 1 ? ((times.length - 1) * 1000) / (times.at(-1) - times[0]) : null;
  $("rate").textContent = rate == null ? "—" : rate.toFixed(rate < 10 ? 1 : 0);
}

function picked(index) {
  if (index === chosen || !result?.faces[index]) return;
  chosen = index;
  showFaces();
}

function marked(drawn) {
  square = drawn;
  if (picture) lookAtPicture();
}

function forgetPicture() {
  picture?.close();
  picture = null;
  forgetSquare();
}

function forgetSquare() {
  square = null;
  stage.unmark();
}

function forgetAnswer() {
  result = null;
  chosen = 0;
  answer.none();
  $("own").disabled = true;
  for (const id of ["latency", "finding"]) $(id).textContent = "—";
}

let spokenAt = -Infinity;
let waiting = null;
let next = ["", ""];

/** Show a sentence, and have it read out with `more` at most once a second, the latest wins; so shown too for a camera. */
function say(sentence, more = "") {
  if (!stream) $("message").textContent = sentence;
  waiting = waiting ?? setTimeout(speak, Math.max(0, spokenAt + SPOKEN_EVERY - performance.now()));
  next = [sentence, more];
}

function speak() {
  waiting = null;
  const [sentence, more] = next;
  const spoken = `${sentence} ${more}`.trim();
  $("message").textContent = sentence;
  if ($("spoken").textContent !== spoken) {
    $("spoken").textContent = spoken;
    spokenAt = performance.now();
  }
}
