// The @anthropic-ai/sdk library.
import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";

const hello = [{ role: "user", content: "Hello" }];
const short = { model: "tiny", messages: hello, max_tokens: 5 };

export function cases({ url, key, tool, large, busy }) {
  const options = { baseURL: url, apiKey: key, maxRetries: 0 };
  const api = new Anthropic(options);
  const tools = [{ name: tool.name, description: tool.description, input_schema: tool.parameters }];
  const calls = { model: "caller", messages: hello, max_tokens: 70, tools };

  return {
    "anthropic asks": async () => {
      const answer = await api.messages.create(short);
      assert.equal(answer.usage.output_tokens, 5);
      assert.ok(answer.content[0].text);
    },
    "anthropic streams": async () => {
      let told = "";
      const stream = api.messages.stream(short).on("text", (word) => (told += word));
      assert.equal(await stream.finalText(), told);
    },
    "anthropic streams a tool's call": async () => {
      const message = await api.messages.stream(calls).finalMessage();
      const call = message.content.find((block) => block.type === "tool_use");
      assert.deepEqual(call.input, { city: "Oslo" });
    },
    "anthropic's beta streams": async () => {
      const betas = ["interleaved-thinking-2025-05-14"];
      const message = await api.beta.messages.stream({ ...short, betas }).finalMessage();
      assert.equal(message.usage.output_tokens, 5);
    },
    "anthropic counts tokens": async () => {
      const counted = await api.messages.countTokens({ model: "tiny", messages: hello });
      assert.ok(counted.input_tokens > 0);
    },
    "anthropic without the right key": async () => {
      const stranger = new Anthropic({ ...options, apiKey: "wrong" });
      await assert.rejects(stranger.messages.create(short), Anthropic.AuthenticationError);
    },
    "anthropic with an unknown model": async () => {
      const refused = api.messages.create({ ...short, model: "other" });
      await assert.rejects(refused, Anthropic.NotFoundError);
    },
    "anthropic with a message that is too large": async () => {
      const messages = [{ role: "user", content: large }];
      await assert.rejects(api.messages.create({ ...short, messages }), { status: 413 });
    },
    "anthropic tries again where a model is busy": async () => {
      const patient = new Anthropic({ ...options, maxRetries: 3 });
      const answer = await busy(() => patient.messages.create({ ...short, model: "narrow" }));
      assert.equal(answer.usage.output_tokens, 5);
    },
  };
}
