// What Vercel's AI SDK makes of a server's answers, as one JSON object.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText } from "ai";

const [baseURL, model] = process.argv.slice(2);
const provider = createOpenAICompatible({ name: "moesaic", baseURL, includeUsage: true });
const asked = {
  model: provider(model),
  prompt: "Tell me of a lighthouse.",
  temperature: 0,
  maxOutputTokens: 12,
  maxRetries: 0,
};

const whole = await generateText(asked);
let stream = "";
for await (const piece of streamText(asked).textStream) {
  stream += piece;
}
console.log(
  JSON.stringify({
    chat: whole.text,
    finish_reason: whole.finishReason,
    usage: whole.usage.outputTokens,
    stream,
  }),
);
