"""A gRPC server of the Open Inference Protocol without a model, on Python's grpcio. Argument: PORT.

`ModelInfer` answers with one output; `ModelStreamInfer` answers each request with as many responses as its parameter
`tokens` says, one every `pace_ms`. The model `missing` does not exist. It keeps no record: the client's is the truth.
"""

import sys
import time
from concurrent import futures

import grpc
import inference_pb2 as pb
import inference_pb2_grpc as rpc


def response(request, text):
    outputs = [pb.ModelInferResponse.InferOutputTensor(name="text_output", datatype="BYTES", shape=[1])]
    outputs[0].contents.bytes_contents.append(text)
    return pb.ModelInferResponse(model_name=request.model_name, id=request.id, outputs=outputs)


class Service(rpc.GRPCInferenceServiceServicer):
    def ServerReady(self, request, context):
        return pb.ServerReadyResponse(ready=True)

    def ModelInfer(self, request, context):
        if request.model_name == "missing":
            context.abort(grpc.StatusCode.NOT_FOUND, f"no model {request.model_name} for {request.inputs}")
        return response(request, b" ".join(request.inputs[0].contents.bytes_contents))

    def ModelStreamInfer(self, requests, context):
        for request in requests:
            for index in range(request.parameters["tokens"].int64_param):
                if index:
                    time.sleep(request.parameters["pace_ms"].int64_param / 1e3)
                yield pb.ModelStreamInferResponse(infer_response=response(request, b" token"))


server = grpc.server(futures.ThreadPoolExecutor(max_workers=80))
rpc.add_GRPCInferenceServiceServicer_to_server(Service(), server)
server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
server.start()
server.wait_for_termination()
