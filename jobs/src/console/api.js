// The HTTP door, as the console uses it. A failed answer becomes an ApiError with the server's code, reason and hint.

export class ApiError extends Error {
  constructor(status, body) {
    super(body.reason ?? `the server answered ${status}`);
    this.status = status;
    this.code = body.code ?? null;
    this.reason = body.reason ?? `The server answered ${status}.`;
    this.hint = body.hint ?? "";
    this.position = body.position ?? null;
  }
}

const listeners = new Set();
/** `listener` hears when a login is needed again. */
export const onLoggedOut = (listener) => listeners.add(listener);

async function ask(method, path, { body, accept, signal } = {}) {
  let answer;
  try {
    answer = await fetch(path, {
      method,
      signal,
      credentials: "same-origin",
      headers: {
        Accept: accept ?? "application/json",
        "X-Starling": "1",
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, { reason: "The server cannot be reached.", hint: "Is `starling serve` running? The page tries again when you do." });
  }
  if (!answer.ok) {
    const told = await answer.json().catch(() => ({}));
    if (answer.status === 401 && !path.endsWith("/login")) listeners.forEach((listener) => listener());
    throw new ApiError(answer.status, told);
  }
  return answer;
}

const json = async (answer) => (answer.status === 204 ? null : answer.json());

export const get = async (path, options) => json(await ask("GET", path, options));
export const post = async (path, body, options) => json(await ask("POST", path, { ...options, body }));
export const remove = async (path) => json(await ask("DELETE", path));

/** A statement's answer: {columns, rows, notices, …}. */
export const sql = (statement, options) => post("/v1/sql", { sql: statement }, options);

/** A statement's answer as a file for the user. */
export async function download(statement, accept, name) {
  const answer = await ask("POST", "/v1/sql", { body: { sql: statement }, accept });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await answer.blob());
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Rows as objects by column name. */
export const objects = ({ columns, rows }) => rows.map((row) => Object.fromEntries(columns.map((column, at) => [column.name, row[at]])));
