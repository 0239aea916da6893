// A server of Dispatch by grpc-js that sends back what it is sent, as bytes. Prints its port.
const grpc = require("@grpc/grpc-js");

const same = (bytes) => bytes;
const most = { "grpc.max_receive_message_length": -1, "grpc.max_send_message_length": -1 };
const server = new grpc.Server(most);
const Dispatch = {
  path: "/moesaic.v1.ExpertService/Dispatch",
  requestStream: true,
  responseStream: true,
  requestSerialize: same,
  requestDeserialize: same,
  responseSerialize: same,
  responseDeserialize: same,
};

function sendBack(call) {
  call.on("data", (message) => {
    if (message.equals(Buffer.from("refuse"))) {
      call.emit("error", { code: grpc.status.RESOURCE_EXHAUSTED, details: "100 % full, ä" });
    } else if (message.equals(Buffer.from("end"))) {
      call.end();
    } else {
      call.write(message);
    }
  });
}

server.addService({ Dispatch }, { Dispatch: sendBack });
server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  console.log(port);
});
