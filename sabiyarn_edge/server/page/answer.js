// Answers that are more than a text: labels with their probabilities, and names found in a text.

// Shows an answer in `place`; gives it as text, for copying.
export function drawAnswer(place, answer, source) {
  if (typeof answer === "string") {
    place.replaceChildren(answer);
    return answer;
  }
  return Array.isArray(answer) ? drawEntities(place, answer, source) : drawLabels(place, answer.probabilities);
}

function drawLabels(place, probabilities) {
  const table = document.createElement("table");
  for (const [label, probability] of Object.entries(probabilities)) {
    const row = table.insertRow();
    const name = document.createElement("th");
    name.scope = "row";
    name.textContent = label;
    const bar = Object.assign(document.createElement("progress"), { max: 1, value: probability });
    bar.setAttribute("aria-hidden", "true"); // the number beside it says the same
    row.append(name);
    row.insertCell().append(bar);
    row.insertCell().append(percent(probability));
  }
  place.replaceChildren(table);
  return Object.entries(probabilities).map(([label, share]) => `${label}\t${percent(share)}`).join("\n");
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;

// Indices count characters as Python does, and JavaScript's strings count UTF-16 units.
function drawEntities(place, entities, source) {
  const characters = Array.from(source);
  const parts = [];
  let end = 0;
  for (const entity of entities) {
    const mark = document.createElement("mark");
    const kind = document.createElement("small");
    kind.textContent = entity.label;
    mark.append(entity.text, kind);
    parts.push(characters.slice(end, entity.start).join(""), mark);
    end = entity.end;
  }
  place.replaceChildren(...parts, characters.slice(end).join(""));
  return entities.map((entity) => `${entity.label}\t${entity.text}`).join("\n");
}
