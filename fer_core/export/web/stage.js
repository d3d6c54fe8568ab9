// The picture or the camera's, with a box for each face: click one, Tab to one, or draw a square of one's own.

const STEP = 0.02; // Of the shorter side, for a press of an arrow key.
const SMALLEST = 16; // Pixels of the picture; less is a click and no square.
const SHOWN = 1600; // Pixels of the longest side on the screen.

export class Stage {
  #parts;
  #tell;
  #size = { width: 1, height: 1 };
  #buttons = [];
  #own = null;
  #mirrored = false;

  /**
   * @param {{stage, picture, camera, boxes: HTMLElement}} parts
   * @param {{picked: (index: number) => void, marked: (square: object | null) => void}} tell null: the square is gone
   */
  constructor(parts, tell) {
    this.#parts = parts;
    this.#tell = tell;
    parts.boxes.addEventListener("pointerdown", (event) => this.#grab(event));
    parts.boxes.addEventListener("keydown", (event) => this.#press(event));
  }

  showPicture(bitmap) {
    const scale = Math.min(1, SHOWN / Math.max(bitmap.width, bitmap.height));
    const { picture } = this.#parts;
    picture.width = Math.max(1, Math.round(bitmap.width * scale));
    picture.height = Math.max(1, Math.round(bitmap.height * scale));
    const context = picture.getContext("2d", { alpha: false });
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, picture.width, picture.height);
    this.#size = { width: bitmap.width, height: bitmap.height };
    this.#fill(picture, false);
  }

  showCamera(mirrored) {
    this.#fill(this.#parts.camera, mirrored);
  }

  empty() {
    this.#fill(null, false);
  }

  /** A box for each face; the buttons stay the same elements, so that the focus stays where it is. */
  place({ faces, width, height }, chosen, words, emotions) {
    this.#size = { width, height };
    while (this.#buttons.length > faces.length) this.#buttons.pop().remove();
    while (this.#buttons.length < faces.length) this.#buttons.push(this.#newBox(this.#buttons.length));
    faces.forEach((face, index) => {
      const button = this.#buttons[index];
      button.classList.toggle("own", Boolean(this.#own));
      button.setAttribute("aria-pressed", String(index === chosen));
      button.dataset.emotion = emotions[index];
      button.dataset.square = [face.x, face.y, face.side].join(" ");
      const help = this.#own ? ". Arrow keys move this square, plus and minus change its size, Escape takes it away" : "";
      button.setAttribute("aria-label", `Face ${index + 1}: ${words[index]}${help}`);
      button.firstChild.textContent = index === chosen ? words[index] : "";
      button.firstChild.hidden = index !== chosen;
      this.#put(button, face);
    });
  }

  /** A square in the middle, to be moved by pointer or keys. */
  mark() {
    const { width, height } = this.#size;
    const side = Math.min(width, height) / 2;
    this.#move({ x: (width - side) / 2, y: (height - side) / 2, side });
  }

  /** Forget the square of one's own. */
  unmark() {
    this.#own = null;
    this.#parts.stage.classList.remove("marking");
  }

  focusFirst() {
    this.#buttons[0]?.focus();
  }

  #fill(shown, mirrored) {
    const { stage, picture, camera } = this.#parts;
    picture.hidden = shown !== picture;
    camera.hidden = shown !== camera;
    stage.classList.toggle("filled", shown !== null);
    stage.classList.toggle("mirrored", mirrored);
    this.#mirrored = mirrored;
    this.place({ faces: [], ...this.#size }, 0, [], []);
    this.unmark();
  }

  #newBox(index) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "box";
    button.append(document.createElement("span"));
    button.addEventListener("click", () => this.#own || this.#tell.picked(index));
    button.addEventListener("focus", () => this.#own || this.#tell.picked(index));
    this.#parts.boxes.append(button);
    return button;
  }

  #put(button, { x, y, side }) {
    const { width, height } = this.#size;
    const left = this.#mirrored ? width - x - side : x;
    button.style.left = `${(100 * left) / width}%`;
    button.style.top = `${(100 * y) / height}%`;
    button.style.width = `${(100 * side) / width}%`;
    button.style.height = `${(100 * side) / height}%`;
    button.classList.toggle("low", y < 0.1 * height);
    button.classList.toggle("late", left + side / 2 > width / 2);
  }

  #move(square) {
    const { width, height } = this.#size;
    const side = Math.round(Math.min(Math.max(square.side, SMALLEST), width, height));
    const within = (at, length) => Math.round(Math.max(0, Math.min(at, length - side)));
    this.#own = { x: within(square.x, width), y: within(square.y, height), side };
    this.#parts.stage.classList.add("marking");
    this.#tell.marked(this.#own);
  }

  #grab(down) {
    if (down.button !== 0) return;
    const box = down.target.closest(".box");
    if (box && !this.#own) return;
    if (down.pointerType === "touch" && !this.#own) return; // A finger scrolls, until a square is asked for.
    const { boxes } = this.#parts;
    const start = this.#at(down);
    const old = box ? { ...this.#own } : null;
    const follow = (event) => {
      const now = this.#at(event);
      const side = Math.max(Math.abs(now.x - start.x), Math.abs(now.y - start.y));
      if (old) this.#move({ ...old, x: old.x + now.x - start.x, y: old.y + now.y - start.y });
      else if (side >= SMALLEST) this.#move({ x: now.x < start.x ? start.x - side : start.x, y: now.y < start.y ? start.y - side : start.y, side });
    };
    const release = () => boxes.removeEventListener("pointermove", follow);
    boxes.setPointerCapture(down.pointerId);
    boxes.addEventListener("pointermove", follow);
    boxes.addEventListener("lostpointercapture", release, { once: true });
  }

  #press(event) {
    if (!this.#own) return;
    const { x, y, side } = this.#own;
    const step = Math.max(1, STEP * Math.min(this.#size.width, this.#size.height));
    const right = this.#mirrored ? -step : step;
    const grown = (by) => ({ x: x - by / 2, y: y - by / 2, side: side + by });
    const moves = {
      ArrowLeft: { x: x - right, y, side },
      ArrowRight: { x: x + right, y, side },
      ArrowUp: { x, y: y - step, side },
      ArrowDown: { x, y: y + step, side },
      "+": grown(2 * step),
      "=": grown(2 * step),
      "-": grown(-2 * step),
    };
    if (event.key === "Escape") {
      this.unmark();
      this.#tell.marked(null);
    } else if (moves[event.key]) this.#move(moves[event.key]);
    else return;
    event.preventDefault();
  }

  /** Where the pointer is, in pixels of the picture. */
  #at({ clientX, clientY }) {
    const { left, top, width, height } = this.#parts.boxes.getBoundingClientRect();
    const across = (clientX - left) / width;
    return {
      x: (this.#mirrored ? 1 - across : across) * this.#size.width,
      y: ((clientY - top) / height) * this.#size.height,
    };
  }
}
