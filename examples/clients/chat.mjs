// Streams a chat with what Node 20 brings; there is nothing to install.
//
//     OPENAI_API_KEY=… node examples/clients/chat.mjs "Tell me a story." [URL]
//
// With npm's package `openai` the same is `client.chat.completions.create({…, stream: true})` of
// `new OpenAI({ baseURL: URL })`.

const [question, url = "http://127.0.0.1:8000/v1"] = process.argv.slice(2);
const headers = {
  "content-type": "application/json",
  authorization: `Bearer ${process.env.OPENAI_API_KEY ?? "none"}`,
};

const models = await (await fetch(`${url}/models`, { headers })).json();
const response = await fetch(`${url}/chat/completions`, {
  method: "POST",
  headers,
  body: JSON.stringify({
    model: models.data[0].id,
    messages: [{ role: "user", content: question }],
    max_tokens: 64,
    stream: true,
  }),
});
if (!response.ok) throw new Error((await response.json()).error.message);

let rest = "";
for await (const text of response.body.pipeThrough(new TextDecoderStream())) {
  const lines = (rest + text).split("\n");
  rest = lines.pop();
  for (const line of lines) {
    if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
    const event = JSON.parse(line.slice(6));
    if (event.error) throw new Error(event.error.message);
    process.stdout.write(event.choices[0]?.delta.content ?? "");
  }
}
process.stdout.write("\n");
