// A label distribution as bars and words.

const SURE = [
  [0.2, "The model is sure"],
  [0.5, "The model is fairly sure"],
  [0.8, "The model is unsure"],
  [Infinity, "The model cannot tell"],
];

/** Entropy over that of the uniform distribution: 0 is one label, 1 is all alike. */
export function uncertainty(probabilities) {
  const entropy = probabilities.reduce((sum, p) => sum - (p > 0 ? p * Math.log(p) : 0), 0);
  return entropy / Math.log(probabilities.length);
}

export function certaintyInWords(probabilities) {
  return SURE.find(([below]) => uncertainty(probabilities) < below)[1];
}

export function top(probabilities) {
  return probabilities.indexOf(Math.max(...probabilities));
}

export function percent(share) {
  return `${Math.round(100 * share)}\u00a0%`;
}

export class Answer {
  #parts;
  #labels;
  #rows;

  /** @param {{heading, certainty, bars: HTMLElement}} parts */
  constructor(parts, labels) {
    this.#parts = parts;
    this.#labels = labels;
    this.#rows = labels.map((label) => row(label));
    parts.bars.replaceChildren(...this.#rows.map(({ item }) => item));
    this.none();
  }

  show(probabilities) {
    const best = top(probabilities);
    this.#rows.forEach(({ item, fill, number }, index) => {
      item.dataset.probability = probabilities[index];
      item.classList.toggle("top", index === best);
      fill.style.transform = `scaleX(${probabilities[index]})`;
      number.textContent = percent(probabilities[index]);
    });
    this.#parts.bars.classList.remove("waiting");
    this.#parts.heading.textContent = this.#labels[best];
    this.#parts.certainty.textContent = `${certaintyInWords(probabilities)} (uncertainty ${percent(uncertainty(probabilities))}).`;
  }

  none() {
    for (const { item, fill, number } of this.#rows) {
      delete item.dataset.probability;
      item.classList.remove("top");
      fill.style.transform = "scaleX(0)";
      number.textContent = "—";
    }
    this.#parts.bars.classList.add("waiting");
    this.#parts.heading.textContent = "No face yet";
    this.#parts.certainty.textContent = "Choose a picture, or start the camera.";
  }
}

function row(label) {
  const item = element("li", "bar");
  item.dataset.emotion = label;
  const [name, track, fill, number] = [element("span", "name"), element("div", "track"), element("div", "fill"), element("span", "percent")];
  name.textContent = label;
  track.setAttribute("aria-hidden", "true");
  track.append(fill);
  item.append(name, track, number);
  return { item, fill, number };
}

function element(tag, className) {
  const made = document.createElement(tag);
  made.className = className;
  return made;
}
