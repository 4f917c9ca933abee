// The writer's page: what to do, with which text, and the answer as it comes.

import { drawAnswer } from "./answer.js";
import { fillLetters } from "./letters.js";
import { ServerError, ask, events, tell, useKey } from "./server.js";

const $ = (id) => document.getElementById(id);
const FREE = {
  id: "",
  description: "continues any text; tags in it, like <yor>, are read as such",
  slots: ["prompt"],
  languages: {},
  sources: {},
  labels: [],
  answer: "raw",
  options: {},
  example: {},
};
const FREE_TOKENS = 128;
const OPTIONS = ["max_new_tokens", "num_beams", "repetition_penalty", "seed"];
const SLOT_NAMES = { to: "Into", text: "Text", prompt: "Text", question: "Question", context: "Text that tells the answer" };

let tasks = [FREE]; // of the chosen model
let task = FREE;
let running = null; // AbortController of the answer that is being written
let written = ""; // the answer as text

// --- begin

async function begin() {
  $("waiting").hidden = false;
  for (;;) {
    const health = await fetch("health").then((answer) => answer.json()).catch(() => null);
    if (health?.status === "ready") break;
    $("waiting").textContent = health
      ? { loading: "The model is being loaded…" }[health.status] ?? `The server is ${health.status}.`
      : "The server does not answer. Trying again…";
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
  let models;
  try {
    models = (await ask("v1/models")).data;
  } catch (error) {
    $("waiting").textContent = error.status === 401 ? "" : error.message;
    $("waiting").hidden = error.status === 401;
    $("key-form").hidden = error.status !== 401;
    if (error.status === 401) $("key").focus();
    return;
  }
  $("key-form").hidden = $("waiting").hidden = true;
  $("model").replaceChildren(...models.map((model) => new Option(model.id, model.id)));
  $("model-field").hidden = models.length < 2;
  await showTasks();
  $("desk").hidden = false;
}

async function showTasks() {
  const listed = (await ask(`v1/tasks?model=${encodeURIComponent($("model").value)}`)).data;
  tasks = [...listed, FREE];
  const legend = $("tasks").querySelector("legend");
  $("tasks").replaceChildren(legend, ...tasks.map(chip));
  chooseTask(tasks[0]);
}

function chip(offered) {
  const label = document.createElement("label");
  const input = Object.assign(document.createElement("input"), {
    type: "radio",
    name: "task",
    value: offered.id,
    checked: offered === tasks[0],
  });
  const text = document.createElement("span");
  text.textContent = offered === FREE ? "Free text" : named(offered.id);
  input.addEventListener("change", () => chooseTask(offered));
  label.append(input, text);
  return label;
}

const capitalized = (text) => text[0].toUpperCase() + text.slice(1);
const named = (id) => capitalized(id.replaceAll("_", " "));

// --- the form

function chooseTask(chosen) {
  const kept = new Map([...document.querySelectorAll("#slots [data-slot]")].map((one) => [one.dataset.slot, one.value]));
  const text = kept.get("text") ?? kept.get("prompt");
  task = chosen;
  const from = Object.values(task.sources).join(", ");
  $("description").textContent = `${capitalized(task.description)}.` + (from ? ` Takes ${from}.` : "");
  const slots = [...Object.keys(task.languages), ...task.slots.filter((slot) => !(slot in task.languages))];
  if (task.answer === "label" && !task.labels.length) slots.push("labels");
  $("slots").replaceChildren(...slots.map(slotField));
  for (const field of document.querySelectorAll("#slots [data-slot]")) {
    const before = ["text", "prompt"].includes(field.dataset.slot) ? text : kept.get(field.dataset.slot);
    if (before && (field.tagName !== "SELECT" || before in task.languages[field.dataset.slot])) field.value = before;
  }
  $("example").hidden = !Object.keys(task.example).length;
  for (const id of [...OPTIONS, "temperature"]) {
    $(id).disabled = task.answer === "label";
    $(id).placeholder = task.options[id] ?? (id === "seed" ? "new each time" : "");
  }
  if (task === FREE) $("max_new_tokens").placeholder = FREE_TOKENS;
  complain(null);
}

function slotField(slot) {
  const label = document.createElement("label");
  const languages = task.languages[slot];
  let field;
  if (languages) {
    field = document.createElement("select");
    field.append(...Object.entries(languages).map(([code, name]) => new Option(name, code)));
  } else if (slot === "labels") {
    field = Object.assign(document.createElement("input"), { placeholder: "food, travel, sports" });
  } else {
    field = document.createElement("textarea");
    field.spellcheck = false; // the browser's dictionary is not of these languages
  }
  field.dataset.slot = slot;
  field.id = `slot-${slot}`;
  const title = slot === "labels" ? "Labels, with commas between them" : SLOT_NAMES[slot] ?? named(slot);
  label.append(title, field);
  return label;
}

const fieldOf = (slot) => document.querySelector(`#slots [data-slot="${CSS.escape(slot)}"]`);
const writingField = () =>
  document.activeElement.tagName === "TEXTAREA" ? document.activeElement : lastText ?? document.querySelector("#slots textarea");
let lastText = null;

function question() {
  const options = {};
  for (const id of OPTIONS) if ($(id).value !== "") options[id] = Number($(id).value);
  const temperature = $("temperature").value;
  if (temperature !== "") {
    options.do_sample = Number(temperature) > 0;
    if (options.do_sample) Object.assign(options, { temperature: Number(temperature), num_beams: options.num_beams ?? 1 });
  }
  const model = $("model").value;
  if (task === FREE) {
    const body = { model, prompt: fieldOf("prompt").value, max_new_tokens: FREE_TOKENS, ...options };
    return ["v1/completions", { ...body, stream: true, stream_options: { include_usage: true } }];
  }
  const body = { model, stream: ["text", "raw"].includes(task.answer) };
  if (task.answer !== "label") body.options = options;
  for (const field of document.querySelectorAll("#slots [data-slot]")) {
    const slot = field.dataset.slot;
    body[slot] = slot === "labels" ? field.value.split(",").map((label) => label.trim()) : field.value;
  }
  return [`v1/tasks/${encodeURIComponent(task.id)}`, body];
}

// --- the answer

async function write() {
  if (running) return;
  const empty = [...document.querySelectorAll("#slots [data-slot]")].find((field) => !field.value.trim());
  if (empty) return complain("Write a text first, or try the example.", empty);
  complain(null);
  const [path, body] = question();
  running = new AbortController();
  const meter = new Meter();
  show("");
  showRunning(true);
  $("paper").scrollIntoView({ block: "nearest", behavior: "smooth" });
  try {
    const response = await tell(path, body, running.signal);
    if (body.stream) await readStream(response, meter);
    else showWhole(await response.json(), meter);
  } catch (error) {
    if (running.signal.aborted) meter.stopped();
    else if (error instanceof ServerError && error.status === 401) location.reload();
    else complain(error.message, error.param ? fieldOf(error.param) ?? $(error.param) : null);
  } finally {
    running = null;
    meter.end();
    showRunning(false);
  }
}

async function readStream(response, meter) {
  for await (const content of events(response)) {
    const piece = content.choices?.[0] ?? content;
    if (piece.text) {
      written += piece.text;
      $("answer").append(piece.text);
      meter.count();
    }
    if (piece.finish_reason) meter.reason = piece.finish_reason;
    if (content.usage) meter.usage = content.usage;
  }
}

function showWhole(content, meter) {
  written = drawAnswer($("answer"), content.answer, fieldOf("text")?.value ?? "");
  meter.usage = content.usage;
  meter.reason = content.finish_reason;
}

function show(text) {
  written = text;
  $("answer").replaceChildren(text);
  $("answer").lang = fieldOf("to")?.value ?? fieldOf("language")?.value ?? "";
}

function showRunning(on) {
  const focused = document.activeElement === $(on ? "write" : "stop");
  $("write").hidden = on;
  $("stop").hidden = !on;
  if (focused) $(on ? "stop" : "write").focus();
  $("answer").setAttribute("aria-busy", String(on)); // screen readers read it when it is whole
  $("copy").disabled = $("reuse").disabled = on || !written;
}

// What an answer costs: tokens, seconds, tokens/s.
class Meter {
  started = performance.now();
  first = null;
  pieces = 0;
  usage = null;
  reason = "";
  wasStopped = false;

  constructor() {
    $("cost").textContent = "";
    $("progress").textContent = "Reading…";
  }

  count() {
    this.first ??= performance.now();
    this.pieces += 1;
    $("progress").textContent = `${this.pieces} tokens, ${this.speed(this.pieces)} tokens/s`;
  }

  stopped() {
    this.wasStopped = true;
  }

  speed(tokens) {
    const speed = (1000 * tokens) / Math.max(performance.now() - this.started, 1);
    return speed.toFixed(speed < 10 ? 1 : 0);
  }

  end() {
    $("progress").textContent = "";
    const seconds = ((performance.now() - this.started) / 1000).toFixed(1);
    const parts = [];
    if (this.wasStopped) parts.push(`Stopped after ${seconds} s and about ${this.pieces} tokens.`);
    else if (this.usage) {
      const { prompt_tokens: read, completion_tokens: wrote, prompt_tokens_details: details } = this.usage;
      const known = details?.cached_tokens ? ` (${details.cached_tokens} known already)` : "";
      parts.push(`Read ${read} tokens${known}` + (wrote ? `, wrote ${wrote}` : "") + ` in ${seconds} s.`);
      if (wrote) parts.push(`${this.speed(wrote)} tokens/s.`);
      if (this.first) parts.push(`First word after ${((this.first - this.started) / 1000).toFixed(2)} s.`);
    }
    if (this.reason === "length") parts.push("It was cut at its longest length: see Options.");
    $("cost").textContent = parts.join(" ");
  }
}

function complain(message, field = null) {
  for (const one of document.querySelectorAll("[aria-invalid]")) one.removeAttribute("aria-invalid");
  $("error").textContent = message ?? "";
  if (!field) return;
  field.setAttribute("aria-invalid", "true");
  const details = field.closest("details");
  if (details) details.open = true;
  field.focus();
}

// --- buttons and keys

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey($("key").value.trim());
  begin();
});
$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  write();
});
$("stop").addEventListener("click", () => running?.abort());
$("model").addEventListener("change", showTasks);
$("slots").addEventListener("focusin", (event) => {
  if (event.target.tagName === "TEXTAREA") lastText = event.target;
});
$("example").addEventListener("click", () => {
  for (const [slot, text] of Object.entries(task.example)) fieldOf(slot).value = text;
  write();
});
$("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText(written);
  $("copy").textContent = "Copied";
  setTimeout(() => ($("copy").textContent = "Copy"), 1500);
});
$("reuse").addEventListener("click", () => {
  const field = fieldOf("text") ?? fieldOf("prompt") ?? document.querySelector("#slots textarea");
  field.value = task.answer === "raw" ? field.value + written : written;
  field.focus();
  show("");
  showRunning(false);
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    write();
  } else if (event.key === "Escape") running?.abort();
});

fillLetters($("letters"), writingField);
begin();
