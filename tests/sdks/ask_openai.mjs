// What the openai package of npm makes of a server's answers, as one JSON object.
import OpenAI from "openai";

const [baseURL, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0 });
const asked = {
  model,
  messages: [{ role: "user", content: "Tell me of a lighthouse." }],
  temperature: 0,
  max_tokens: 12,
};

const whole = await client.chat.completions.create(asked);
let stream = "";
for await (const chunk of await client.chat.completions.create({ ...asked, stream: true })) {
  stream += chunk.choices[0]?.delta.content ?? "";
}
let error = "none";
try {
  await client.chat.completions.create({ ...asked, model: "another" });
} catch (refusal) {
  error = `${refusal.constructor.name} ${refusal.status}`;
}
console.log(
  JSON.stringify({
    chat: whole.choices[0].message.content,
    finish_reason: whole.choices[0].finish_reason,
    usage: whole.usage.completion_tokens,
    stream,
    error,
  }),
);
