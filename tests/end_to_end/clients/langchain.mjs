// The @langchain/openai library.
import assert from "node:assert/strict";
import { ChatOpenAI, OpenAIEmbeddings } from "@langchain/openai";

export function cases({ url, key, tool }) {
  const given = { configuration: { baseURL: `${url}/v1` }, apiKey: key, maxRetries: 0 };
  const chat = (options) => new ChatOpenAI({ ...given, model: "tiny", maxTokens: 5, ...options });

  return {
    "langchain chats": async () => {
      const answer = await chat().invoke("Hello");
      assert.equal(answer.usage_metadata.output_tokens, 5);
    },
    "langchain streams": async () => {
      let words = 0;
      for await (const chunk of await chat().stream("Hello")) words += chunk.content ? 1 : 0;
      assert.equal(words, 5);
    },
    "langchain calls a tool": async () => {
      const tools = [{ type: "function", function: tool }];
      const model = chat({ model: "caller", maxTokens: 70 }).bindTools(tools);
      const [call] = (await model.invoke("Hello")).tool_calls;
      assert.deepEqual([call.name, call.args], ["weather", { city: "Oslo" }]);
    },
    "langchain asks responses": async () => {
      assert.ok((await chat({ useResponsesApi: true }).invoke("Hello")).text);
    },
    "langchain embeds": async () => {
      const model = new OpenAIEmbeddings({ ...given, model: "vectors" });
      const vectors = await model.embedDocuments(["one"]);
      assert.deepEqual(vectors.map((vector) => vector.length), [128]);
    },
    "langchain without the right key": async () => {
      await assert.rejects(chat({ apiKey: "wrong" }).invoke("Hello"), { status: 401 });
    },
    "langchain with an unknown model": async () => {
      await assert.rejects(chat({ model: "other" }).invoke("Hello"), { status: 404 });
    },
  };
}
