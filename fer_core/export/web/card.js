// What the model says of itself, as a list.

export function showCard(list, card) {
  const rows = [
    ["model", card.name],
    ["learnt from", card.trained_on],
    ["accuracy", accuracy(card.accuracy)],
    ["not for", card.limits],
    ["licence", card.licence],
    ["made by", card.fer_version],
  ];
  for (const [term, text] of rows) {
    if (!text) continue;
    const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
    dt.textContent = term;
    dd.textContent = text;
    list.append(dt, dd);
  }
}

function accuracy(measured) {
  if (!measured) return "not measured";
  const points = (share) => (100 * share).toFixed(1);
  const interval = measured.low == null ? "" : `, 95 % interval ${points(measured.low)} to ${points(measured.high)}`;
  const others = measured.dataset ? ` (${measured.dataset}) other than those that its training kept for judging` : "";
  return `${points(measured.value)} % of ${measured.images.toLocaleString("en")} test images${others}${interval}. On your pictures it may be lower.`;
}
