// Talks to the server: JSON questions, and answers that come as server-sent events.

let key = sessionStorage.getItem("key") ?? "";

export function useKey(given) {
  key = given;
  sessionStorage.setItem("key", given);
}

export class ServerError extends Error {
  constructor(status, error) {
    super(error?.message ?? `The server answered with status ${status}.`);
    this.status = status;
    this.param = error?.param ?? null;
  }
}

function headers(more) {
  return key ? { ...more, Authorization: `Bearer ${key}` } : more;
}

async function refuse(response) {
  const body = await response.json().catch(() => null);
  throw new ServerError(response.status, body?.error);
}

export async function ask(path) {
  const response = await fetch(path, { headers: headers({}) });
  if (!response.ok) await refuse(response);
  return response.json();
}

export async function tell(path, body, signal) {
  const response = await fetch(path, {
    method: "POST",
    headers: headers({ "Content-Type": "application/json" }),
    body: JSON.stringify(body),
    signal,
  });
  if (!response.ok) await refuse(response);
  return response;
}

// The JSON values of an answer's events, as they come, until "[DONE]".
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new ServerError(0, { message: "The connection ended before the answer did." });
    const pieces = (waiting + value).split("\n\n");
    waiting = pieces.pop();
    for (const piece of pieces) {
      if (!piece.startsWith("data: ")) continue; // a comment that keeps the connection alive
      const text = piece.slice("data: ".length);
      if (text === "[DONE]") return;
      const content = JSON.parse(text);
      if (content.error) throw new ServerError(500, content.error);
      yield content;
    }
  }
}
