// A row of letters and tone marks that many keyboards lack. Arrow keys move in it: it is one stop for the Tab key.

const LETTERS = ["ẹ", "ọ", "ṣ", "ị", "ụ", "ṅ", "ɓ", "ɗ", "ƙ", "ƴ", "ǝ"];
const MARKS = [
  ["\u0300", "low tone"],
  ["\u0301", "high tone"],
  ["\u0304", "mid tone"],
  ["\u0302", "falling tone"],
  ["\u030c", "rising tone"],
  ["\u0323", "dot below"],
];

// Types `text` at the caret of the field that `target()` gives. A mark joins the letter before it.
function type(field, text) {
  field.focus();
  let start = field.selectionStart;
  if (/^\p{M}/u.test(text) && start === field.selectionEnd) {
    const before = Array.from(new Intl.Segmenter().segment(field.value.slice(0, start))).pop()?.segment ?? "";
    start -= before.length;
    text = (before + text).normalize("NFC");
    field.setSelectionRange(start, field.selectionEnd);
  }
  // Unlike setRangeText, this can be undone with the keyboard.
  if (!document.execCommand("insertText", false, text)) {
    field.setRangeText(text, start, field.selectionEnd, "end");
  }
}

export function fillLetters(toolbar, target) {
  const capitals = button("Aa", "capital letters");
  capitals.setAttribute("aria-pressed", "false");
  capitals.addEventListener("click", () => {
    const on = capitals.getAttribute("aria-pressed") !== "true";
    capitals.setAttribute("aria-pressed", String(on));
    letters.forEach((letter, i) => (letter.textContent = on ? LETTERS[i].toUpperCase() : LETTERS[i]));
  });
  const letters = LETTERS.map((letter) => button(letter, ""));
  const marks = MARKS.map(([mark, name]) => button("\u25cc" + mark, name));
  letters.forEach((each) => each.addEventListener("click", () => type(target(), each.textContent)));
  marks.forEach((each, i) => each.addEventListener("click", () => type(target(), MARKS[i][0])));

  const all = [capitals, ...letters, ...marks];
  all.forEach((each) => (each.tabIndex = -1));
  all[0].tabIndex = 0;
  toolbar.append(...all);
  toolbar.addEventListener("mousedown", (event) => event.preventDefault()); // the text keeps its caret
  toolbar.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const now = all.indexOf(document.activeElement);
    const next = all[(now + step + all.length) % all.length];
    all[now].tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
}

function button(text, name) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  if (name) {
    made.title = name;
    made.setAttribute("aria-label", name);
  }
  return made;
}
