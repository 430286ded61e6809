// The openai library, version 7.
import assert from "node:assert/strict";
import OpenAI from "openai";

const hello = [{ role: "user", content: "Hello" }];
const short = { model: "tiny", messages: hello, max_tokens: 5 };
const asks = { model: "tiny", input: "Hello", max_output_tokens: 5 };

export function cases({ url, key, tool, large, busy }) {
  const options = { baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 };
  const api = new OpenAI(options);
  const tools = [{ type: "function", function: tool }];
  const calls = { model: "caller", messages: hello, max_tokens: 70, tools };

  return {
    "openai chats": async () => {
      const answer = await api.chat.completions.create(short);
      assert.equal(answer.usage.completion_tokens, 5);
      assert.ok(answer.choices[0].message.content);
    },
    "openai reads chunks": async () => {
      let words = 0;
      for await (const chunk of await api.chat.completions.create({ ...short, stream: true })) {
        words += chunk.choices[0]?.delta.content ? 1 : 0;
      }
      assert.equal(words, 5);
    },
    "openai streams a tool's call": async () => {
      const message = await api.chat.completions.stream(calls).finalMessage();
      assert.deepEqual(JSON.parse(message.tool_calls[0].function.arguments), { city: "Oslo" });
    },
    "openai asks responses": async () => {
      assert.ok((await api.responses.create(asks)).output_text);
    },
    "openai streams responses": async () => {
      let told = "";
      const stream = api.responses.stream(asks);
      stream.on("response.output_text.delta", (event) => (told += event.delta));
      assert.equal((await stream.finalResponse()).output_text, told);
    },
    "openai embeds": async () => {
      const answer = await api.embeddings.create({ model: "vectors", input: ["one", "two"] });
      assert.deepEqual(answer.data.map((item) => item.embedding.length), [128, 128]);
    },
    "openai lists models": async () => {
      const ids = [];
      for await (const model of api.models.list()) ids.push(model.id);
      assert.ok(ids.includes("tiny"));
      const named = new OpenAI({ ...options, baseURL: `${url}/tiny/v1` });
      assert.equal((await named.models.retrieve("tiny")).id, "tiny");
    },
    "openai leaves a stream": async () => {
      const stream = await api.chat.completions.create({ ...short, max_tokens: -1, stream: true });
      for await (const _ of stream) break;
      await api.chat.completions.create(short);
    },
    "openai sends half an emoji": async () => {
      const messages = [{ role: "user", content: "\u{1f600}".slice(0, 1) }];
      const answer = await api.chat.completions.create({ ...short, messages });
      assert.equal(answer.usage.completion_tokens, 5);
    },
    "openai without the right key": async () => {
      const stranger = new OpenAI({ ...options, apiKey: "wrong" });
      await assert.rejects(stranger.chat.completions.create(short), OpenAI.AuthenticationError);
    },
    "openai with an unknown model": async () => {
      const refused = api.chat.completions.create({ ...short, model: "other" });
      await assert.rejects(refused, OpenAI.NotFoundError);
    },
    "openai with a message that is too large": async () => {
      const messages = [{ role: "user", content: large }];
      await assert.rejects(api.chat.completions.create({ ...short, messages }), { status: 413 });
    },
    "openai tries again where a model is busy": async () => {
      const patient = new OpenAI({ ...options, maxRetries: 3 });
      const asked = () => patient.chat.completions.create({ ...short, model: "narrow" });
      assert.equal((await busy(asked)).usage.completion_tokens, 5);
    },
  };
}
