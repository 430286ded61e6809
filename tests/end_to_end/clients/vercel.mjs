// Vercel's AI SDK, through @ai-sdk/openai-compatible and @ai-sdk/openai.
import assert from "node:assert/strict";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, Output, embedMany, generateText, jsonSchema, streamText } from "ai";
import { tool as toolOf } from "ai";

const short = { prompt: "Hello", maxOutputTokens: 5, maxRetries: 0 };

async function read(result) {
  let told = "";
  for await (const part of result.fullStream) {
    if (part.type === "error") throw part.error;
    if (part.type === "text-delta") told += part.text;
  }
  return told;
}

export function cases({ url, key, tool, large, busy }) {
  const options = { baseURL: `${url}/v1`, apiKey: key, name: "front" };
  const compatible = createOpenAICompatible(options);
  const openai = createOpenAI(options);
  const schema = jsonSchema(tool.parameters);
  const weather = toolOf({ description: tool.description, inputSchema: schema });
  const calls = { ...short, model: compatible("caller"), maxOutputTokens: 70, tools: { weather } };

  return {
    "ai generates": async () => {
      const answer = await generateText({ ...short, model: compatible("tiny") });
      assert.equal(answer.usage.outputTokens, 5);
    },
    "ai streams": async () => {
      const result = streamText({ ...short, model: compatible("tiny") });
      assert.equal(await read(result), await result.text);
      assert.equal(await result.finishReason, "length");
    },
    "ai calls a tool": async () => {
      const [call] = (await generateText(calls)).toolCalls;
      assert.deepEqual([call.toolName, call.input], ["weather", { city: "Oslo" }]);
    },
    "ai streams a tool's call": async () => {
      const result = streamText(calls);
      await read(result);
      assert.deepEqual((await result.toolCalls)[0].input, { city: "Oslo" });
    },
    "ai gets a format": async () => {
      const given = { ...short, model: openai.chat("tiny"), maxOutputTokens: 100 };
      const answer = await generateText({ ...given, output: Output.object({ schema }) });
      assert.deepEqual(answer.output, { city: "Oslo" });
    },
    "ai asks responses": async () => {
      const answer = await generateText({ ...short, model: openai.responses("tiny") });
      assert.ok(answer.text);
    },
    "ai streams responses": async () => {
      const result = streamText({ ...short, model: openai.responses("tiny") });
      const told = await read(result);
      assert.ok(told);
      assert.equal(told, await result.text);
    },
    "ai streams a tool's call in responses": async () => {
      const result = streamText({ ...calls, model: openai.responses("caller") });
      await read(result);
      assert.deepEqual((await result.toolCalls)[0].input, { city: "Oslo" });
    },
    "ai embeds": async () => {
      const model = compatible.embeddingModel("vectors");
      const { embeddings } = await embedMany({ model, values: ["one", "two"] });
      assert.deepEqual(embeddings.map((vector) => vector.length), [128, 128]);
    },
    "ai without the right key": async () => {
      const stranger = createOpenAICompatible({ ...options, apiKey: "wrong" });
      const refused = generateText({ ...short, model: stranger("tiny") });
      await assert.rejects(refused, (e) => APICallError.isInstance(e) && e.statusCode === 401);
    },
    "ai with an unknown model": async () => {
      const refused = generateText({ ...short, model: compatible("other") });
      const told = /there is no model 'other'/;
      await assert.rejects(refused, (e) => e.statusCode === 404 && told.test(e.message));
    },
    "ai with a message that is too large": async () => {
      const refused = generateText({ ...short, model: compatible("tiny"), prompt: large });
      await assert.rejects(refused, (e) => APICallError.isInstance(e) && e.statusCode === 413);
    },
    "ai tries again where a model is busy": async () => {
      const given = { ...short, model: compatible("narrow"), maxRetries: 3 };
      assert.equal((await busy(() => generateText(given))).usage.outputTokens, 5);
    },
  };
}
