"""Cloud Run's and Vertex AI's APIs on this machine: real gRPC, the SDK's own messages.

It keeps state and refuses what the platforms refuse, as far as the plans depend on it; operations
take two looks. `Google.fail` makes the next call of a method, or its operation, fail.
"""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
from google.cloud import aiplatform_v1, run_v2
from google.longrunning import operations_pb2
from google.protobuf import any_pb2, empty_pb2, json_format
from google.rpc import code_pb2, status_pb2

_SERVICES = {
    "google.cloud.run.v2.Services": run_v2,
    "google.cloud.aiplatform.v1.ModelService": aiplatform_v1,
    "google.cloud.aiplatform.v1.EndpointService": aiplatform_v1,
    "google.cloud.aiplatform.v1.JobService": aiplatform_v1,
}
OPERATIONS = "google.longrunning.Operations"


class RefusalError(Exception):
    """The platform's refusal."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Google(grpc.GenericRpcHandler):
    """The state of a project, and every request that came."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.services: dict[str, run_v2.Service] = {}
        self.revisions: dict[str, dict[str, Any]] = {}
        self.models: dict[str, list[aiplatform_v1.Model]] = {}
        self.endpoints: dict[str, aiplatform_v1.Endpoint] = {}
        self.jobs: dict[str, list[str]] = {}
        self.cancelled: list[str] = []
        self.accounts: set[str] = set()
        #: Resource → (role, member) that are granted; and what the next changes are refused with.
        self.policies: dict[str, list[tuple[str, str]]] = {}
        self.policy_refusals: list[tuple[int, str]] = []
        #: How often a new account is not found yet.
        self.late = 0
        #: Method → refusal of the call, or of its operation.
        self.refuse: dict[str, RefusalError] = {}
        self.fail: dict[str, RefusalError] = {}
        self._operations: dict[str, tuple[int, operations_pb2.Operation]] = {}
        self._deployed = 1000

    @property
    def calls(self) -> list[str]:
        return [name for name, _ in self.requests]

    # gRPC ------------------------------------------------------------------------------------

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        service, method = details.method.removeprefix("/").split("/")
        if service == OPERATIONS and method == "CancelOperation":
            return grpc.unary_unary_rpc_method_handler(
                self._cancel,
                operations_pb2.CancelOperationRequest.FromString,
                empty_pb2.Empty.SerializeToString,
            )
        if service == OPERATIONS:
            return grpc.unary_unary_rpc_method_handler(
                lambda request, context: self._look(request, context),
                operations_pb2.GetOperationRequest.FromString,
                operations_pb2.Operation.SerializeToString,
            )
        kind = getattr(_SERVICES[service], f"{method}Request")
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: self._answer(method, request, context),
            lambda data: kind.deserialize(data),
            lambda message: (
                message.SerializeToString()
                if hasattr(message, "SerializeToString")
                else type(message).serialize(message)
            ),
        )

    def _answer(self, method: str, request: Any, context: grpc.ServicerContext) -> Any:
        plain = json_format.MessageToDict(
            type(request).pb(request), preserving_proto_field_name=True
        )
        self.requests.append((method, plain))
        try:
            if method in self.refuse:
                raise self.refuse.pop(method)
            handler: Callable[[Any], Any] = getattr(self, f"_{_snake(method)}")
            return handler(request)
        except RefusalError as error:
            context.abort(getattr(grpc.StatusCode, error.code), error.message)

    def _look(self, request: Any, context: grpc.ServicerContext) -> operations_pb2.Operation:
        looks, operation = self._operations[request.name]
        self._operations[request.name] = (looks + 1, operation)
        return operation if looks else operations_pb2.Operation(name=request.name)

    def _cancel(self, request: Any, context: grpc.ServicerContext) -> empty_pb2.Empty:
        self.cancelled.append(request.name)
        return empty_pb2.Empty()

    def _start(self, method: str, result: Any) -> operations_pb2.Operation:
        name = f"projects/p/locations/l/operations/{len(self._operations)}"
        done = operations_pb2.Operation(name=name, done=True)
        if error := self.fail.pop(method, None):
            code = code_pb2.Code.Value(error.code)
            done.error.CopyFrom(status_pb2.Status(code=code, message=error.message))
        else:
            raw = type(result).pb(result) if hasattr(type(result), "pb") else result
            packed = any_pb2.Any()
            packed.Pack(raw)
            done.response.CopyFrom(packed)
        self._operations[name] = (0, done)
        return operations_pb2.Operation(name=name)

    # Cloud Run -------------------------------------------------------------------------------

    def _create_service(self, request: run_v2.CreateServiceRequest) -> Any:
        name = f"{request.parent}/services/{request.service_id}"
        if name in self.services:
            raise RefusalError("ALREADY_EXISTS", f"Resource '{request.service_id}' already exists.")
        service = run_v2.Service(request.service)
        service.name = name
        if any(target.revision for target in service.traffic):
            raise RefusalError("INVALID_ARGUMENT", "a revision that does not exist yet")
        self.services[name] = service
        self._roll_out(service, "CreateService")
        return self._start("CreateService", service)

    def _update_service(self, request: run_v2.UpdateServiceRequest) -> Any:
        service = self._service(request.service.name)
        if request.service.etag and request.service.etag != service.etag:
            raise RefusalError("ABORTED", "Conflict for resource: version changed")
        for path in request.update_mask.paths:
            setattr(service, path, getattr(request.service, path))
        self._roll_out(service, "UpdateService")
        return self._start("UpdateService", service)

    def _roll_out(self, service: run_v2.Service, method: str) -> None:
        short = service.name.rpartition("/")[2]
        template = run_v2.RevisionTemplate.to_dict(service.template)
        revision = service.template.revision or f"{short}-{len(self.revisions):05d}-auto"
        if not revision.startswith(f"{short}-"):
            raise RefusalError("INVALID_ARGUMENT", f"revision name must begin with {short}-")
        if self.revisions.get(revision, template) != template:
            raise RefusalError(
                "ALREADY_EXISTS", f"Revision '{revision}' with different configuration"
            )
        self.revisions[revision] = template
        service.latest_created_revision = f"{service.name}/revisions/{revision}"
        if method not in self.fail:
            service.latest_ready_revision = service.latest_created_revision
        self._route(service, short, revision)
        service.uri = f"https://{short}-abc123-ew.a.run.app"
        service.etag = f'"{len(self.requests)}"'

    def _route(self, service: run_v2.Service, short: str, latest: str) -> None:
        traffic = list(service.traffic)
        tags = [target.tag for target in traffic if target.tag]
        if len(set(tags)) != len(tags):
            raise RefusalError("INVALID_ARGUMENT", "traffic tags must be unique")
        if traffic and sum(target.percent for target in traffic) != 100:
            raise RefusalError("INVALID_ARGUMENT", "Traffic targets must add up to 100")
        for target in traffic:
            if target.revision and target.revision not in self.revisions:
                raise RefusalError("INVALID_ARGUMENT", f"Revision '{target.revision}' is not found")
        service.traffic_statuses = [
            run_v2.TrafficTargetStatus(
                revision=target.revision or latest,
                percent=target.percent,
                tag=target.tag,
                uri=f"https://{target.tag}---{short}-abc123-ew.a.run.app" if target.tag else "",
            )
            for target in traffic
        ]

    def _get_service(self, request: run_v2.GetServiceRequest) -> run_v2.Service:
        return self._service(request.name)

    def _delete_service(self, request: run_v2.DeleteServiceRequest) -> Any:
        service = self._service(request.name)
        del self.services[request.name]
        return self._start("DeleteService", service)

    def _service(self, name: str) -> run_v2.Service:
        if name not in self.services:
            raise RefusalError("NOT_FOUND", f"Resource '{name}' was not found")
        return self.services[name]

    # Vertex AI -------------------------------------------------------------------------------

    def _upload_model(self, request: aiplatform_v1.UploadModelRequest) -> Any:
        name = request.parent_model or f"{request.parent}/models/{request.model_id}"
        if not request.parent_model and name in self.models:
            raise RefusalError("ALREADY_EXISTS", f"Model {name} already exists")
        if request.parent_model and name not in self.models:
            raise RefusalError("NOT_FOUND", f"Model {name} is not found")
        versions = self.models.setdefault(name, [])
        versions.append(request.model)
        number = str(len(versions))
        answer = aiplatform_v1.UploadModelResponse(model=name, model_version_id=number)
        return self._start("UploadModel", answer)

    def _get_model(self, request: aiplatform_v1.GetModelRequest) -> aiplatform_v1.Model:
        if request.name not in self.models:
            raise RefusalError("NOT_FOUND", f"Model {request.name} is not found")
        return self.models[request.name][-1]

    def _delete_model(self, request: aiplatform_v1.DeleteModelRequest) -> Any:
        if request.name not in self.models:
            raise RefusalError("NOT_FOUND", f"Model {request.name} is not found")
        for endpoint in self.endpoints.values():
            if any(m.model.startswith(f"{request.name}@") for m in endpoint.deployed_models):
                raise RefusalError("FAILED_PRECONDITION", f"Model is deployed at {endpoint.name}")
        del self.models[request.name]
        return self._start("DeleteModel", empty_pb2.Empty())

    def _delete_model_version(self, request: aiplatform_v1.DeleteModelVersionRequest) -> Any:
        name, _, version = request.name.partition("@")
        assert int(version) == len(self.models[name])
        self.models[name].pop()
        return self._start("DeleteModelVersion", empty_pb2.Empty())

    def _create_endpoint(self, request: aiplatform_v1.CreateEndpointRequest) -> Any:
        name = f"{request.parent}/endpoints/{request.endpoint_id}"
        if name in self.endpoints and "CreateEndpoint" in self.fail:
            return self._start("CreateEndpoint", self.endpoints[name])
        if name in self.endpoints:
            raise RefusalError("ALREADY_EXISTS", f"Endpoint {name} already exists")
        endpoint = aiplatform_v1.Endpoint(request.endpoint)
        endpoint.name = name
        self.endpoints[name] = endpoint
        return self._start("CreateEndpoint", endpoint)

    def _get_endpoint(self, request: aiplatform_v1.GetEndpointRequest) -> aiplatform_v1.Endpoint:
        return self._endpoint(request.name)

    def _deploy_model(self, request: aiplatform_v1.DeployModelRequest) -> Any:
        endpoint = self._endpoint(request.endpoint)
        name, _, version = request.deployed_model.model.partition("@")
        if name not in self.models or int(version or 1) > len(self.models[name]):
            raise RefusalError("NOT_FOUND", f"Model {request.deployed_model.model} is not found")
        if "DeployModel" in self.fail:
            return self._start("DeployModel", endpoint)
        self._deployed += 1
        deployed = aiplatform_v1.DeployedModel(request.deployed_model)
        deployed.id = str(self._deployed)
        endpoint.deployed_models.append(deployed)
        if endpoint.dedicated_endpoint_enabled:
            short = endpoint.name.rpartition("/")[2]
            endpoint.dedicated_endpoint_dns = f"{short}.l-1.prediction.vertexai.goog"
        split = {deployed.id if k == "0" else k: v for k, v in request.traffic_split.items()}
        if split:
            self._split(endpoint, split)
        answer = aiplatform_v1.DeployModelResponse(deployed_model=deployed)
        return self._start("DeployModel", answer)

    def _undeploy_model(self, request: aiplatform_v1.UndeployModelRequest) -> Any:
        endpoint = self._endpoint(request.endpoint)
        left = [m for m in endpoint.deployed_models if m.id != request.deployed_model_id]
        if len(left) == len(endpoint.deployed_models):
            raise RefusalError(
                "NOT_FOUND", f"DeployedModel {request.deployed_model_id} is not found"
            )
        if request.traffic_split:
            self._split(endpoint, dict(request.traffic_split))
        if left and endpoint.traffic_split.get(request.deployed_model_id):
            raise RefusalError("FAILED_PRECONDITION", "the deployed model has traffic")
        endpoint.deployed_models = left
        if not left:
            endpoint.traffic_split = {}
        return self._start("UndeployModel", aiplatform_v1.UndeployModelResponse())

    def _split(self, endpoint: aiplatform_v1.Endpoint, split: Mapping[str, int]) -> None:
        known = {model.id for model in endpoint.deployed_models}
        if sum(split.values()) != 100 or not set(split) <= known:
            raise RefusalError("INVALID_ARGUMENT", f"not a traffic split: {dict(split)}")
        endpoint.traffic_split = dict(split)

    def _delete_endpoint(self, request: aiplatform_v1.DeleteEndpointRequest) -> Any:
        if self._endpoint(request.name).deployed_models:
            raise RefusalError("FAILED_PRECONDITION", "the endpoint has deployed models")
        del self.endpoints[request.name]
        return self._start("DeleteEndpoint", empty_pb2.Empty())

    def _endpoint(self, name: str) -> aiplatform_v1.Endpoint:
        if name not in self.endpoints:
            raise RefusalError("NOT_FOUND", f"Endpoint {name} is not found")
        return self.endpoints[name]

    def _create_batch_prediction_job(
        self, request: aiplatform_v1.CreateBatchPredictionJobRequest
    ) -> aiplatform_v1.BatchPredictionJob:
        job = aiplatform_v1.BatchPredictionJob(request.batch_prediction_job)
        job.name = f"{request.parent}/batchPredictionJobs/1"
        failed = self.fail.pop("CreateBatchPredictionJob", None)
        last = "JOB_STATE_FAILED" if failed else "JOB_STATE_SUCCEEDED"
        self.jobs[job.name] = ["JOB_STATE_PENDING", "JOB_STATE_RUNNING", last]
        return job

    def _cancel_batch_prediction_job(
        self, request: aiplatform_v1.CancelBatchPredictionJobRequest
    ) -> empty_pb2.Empty:
        self.jobs[request.name] = ["JOB_STATE_CANCELLED"]
        return empty_pb2.Empty()

    def _get_batch_prediction_job(
        self, request: aiplatform_v1.GetBatchPredictionJobRequest
    ) -> aiplatform_v1.BatchPredictionJob:
        states = self.jobs[request.name]
        state = states.pop(0) if len(states) > 1 else states[0]
        job = aiplatform_v1.BatchPredictionJob(name=request.name, state=state)
        if state == "JOB_STATE_FAILED":
            job.error.message = "the file has no instances"
        return job

    # IAM, over REST --------------------------------------------------------------------------

    def account(self, verb: str, path: str, body: Any) -> tuple[int, dict[str, Any]]:
        self.requests.append((f"iam {verb}", {"path": path, "body": body}))
        if path.partition("?")[0].endswith("IamPolicy"):
            return self._policy(verb, path.partition("?")[0].split("/", 2)[2], body)
        if verb == "POST":
            project = path.split("/")[3]
            email = f"{body['accountId']}@{project}.iam.gserviceaccount.com"
            name = f"projects/{project}/serviceAccounts/{email}"
            if name in self.accounts:
                words = f"Service account {body['accountId']} already exists within project {name}"
                return 409, {"error": {"code": 409, "message": words, "status": "ALREADY_EXISTS"}}
            self.accounts.add(name)
            return 200, {"name": name, "email": email}
        name = path.removeprefix("/v1/")
        late = verb == "GET" and self.late > 0
        self.late -= late
        if late or name not in self.accounts:
            words = f"Unknown service account: {name}"
            return 404, {"error": {"code": 404, "message": words, "status": "NOT_FOUND"}}
        if verb == "DELETE":
            self.accounts.remove(name)
            return 200, {}
        return 200, {"name": name}

    def _policy(self, verb: str, path: str, body: Any) -> tuple[int, dict[str, Any]]:
        resource = path.partition(":")[0]
        if verb == "POST" and self.policy_refusals:
            code, words = self.policy_refusals.pop(0)
            return code, {"error": {"code": code, "message": words}}
        if verb == "POST":
            bindings = body["policy"].get("bindings", [])
            self.policies[resource] = [(b["role"], m) for b in bindings for m in b["members"]]
        granted = self.policies.get(resource, [])
        roles = dict.fromkeys(role for role, _ in granted)
        bindings = [{"role": r, "members": [m for q, m in granted if q == r]} for r in roles]
        return 200, {"version": 1, "etag": "e", **({"bindings": bindings} if bindings else {})}


def _snake(method: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in method).lstrip("_")


@contextmanager
def google_here() -> Iterator[tuple[Google, dict[str, str]]]:
    """The platform, and what a plan's connection needs to reach it."""
    google = Google()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((google,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()

    class Accounts(http.server.BaseHTTPRequestHandler):
        def _respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, answer = google.account(
                self.command, self.path, json.loads(body) if body else None
            )
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = _respond  # noqa: N815 - the base class's names

        def log_message(self, *arguments: Any) -> None:
            """Stay silent."""

    iam = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Accounts)
    thread = threading.Thread(target=iam.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield (
            google,
            {
                "emulator": f"127.0.0.1:{port}",
                "iam": f"http://127.0.0.1:{iam.server_address[1]}",
                "look": "0.001",
            },
        )
    finally:
        iam.shutdown()
        iam.server_close()
        thread.join()
        server.stop(None).wait()
