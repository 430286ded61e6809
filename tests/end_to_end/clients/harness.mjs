// Runs the cases of all libraries, one after the other, and prints what became of each: null, or
// its error. Reads JSON: the front's url, a key, a tool, and a text that is too large.
import { readFileSync } from "node:fs";

const LIBRARIES = ["openai", "anthropic", "vercel", "langchain"];

const given = JSON.parse(readFileSync(0));
const headers = { authorization: `Bearer ${given.key}` };

async function denied() {
  const answer = await fetch(`${given.url}/api/status`, { headers });
  return (await answer.json()).models.find((model) => model.name === "narrow").denied;
}

// Ask `narrow` while a stream takes it. The stream ends once one request more was refused.
async function busy(ask) {
  const before = await denied();
  const body = JSON.stringify({ prompt: "Hello", max_tokens: -1, stream: true });
  const address = `${given.url}/narrow/v1/completions`;
  const stream = await fetch(address, { method: "POST", headers, body });
  const reader = stream.body.getReader();
  await reader.read();
  let over = false;
  const asked = ask().finally(() => (over = true));
  while (!over && (await denied()) === before);
  const refused = !over;
  await reader.cancel();
  const answer = await asked;
  if (!refused) throw new Error("answered though a stream was taking the model");
  return answer;
}

const results = {};
for (const library of LIBRARIES) {
  const { cases } = await import(`./${library}.mjs`);
  for (const [name, run] of Object.entries(cases({ ...given, busy }))) {
    results[name] = await run().then(
      () => null,
      (error) => error.stack ?? String(error),
    );
  }
}
console.log(JSON.stringify(results));
process.exit(0); // connections that are kept alive would keep the process
