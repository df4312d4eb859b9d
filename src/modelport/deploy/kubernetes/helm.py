"""A Helm chart of the objects in `modelport.deploy.kubernetes.workload`, from the same functions.

A `Workload` whose values are template expressions gives the templates: an expression is a text
between marks, which is written into the YAML where its value would be; `template` then takes the
quotes and marks away. With the chart's own values it renders to the plain manifests.

Sources: https://helm.sh/docs/topics/charts/ and https://helm.sh/docs/chart_best_practices/.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from modelport.deploy import documents
from modelport.deploy.base import PlannedFile
from modelport.deploy.kubernetes import manifests, surroundings, workload
from modelport.deploy.kubernetes.choices import KubernetesSettings, monitor_labels

_MARK: Final = "%%"
#: ``key: '%%text%%'``, or a line of its own: ``- '%%text%%'`` and ``'%%text%%': null``.
_BLOCK: Final = re.compile(r"^( *)(\S+): '%%block (.+)%%'$", re.MULTILINE)
_LINE: Final = re.compile(r"^ *(?:- )?'?%%line (.+?)(?:#\d+)?%%'?(?:: null)?$", re.MULTILINE)
_VALUE: Final = re.compile(r"'?%%(.+?)%%'?")


def expression(text: str) -> str:
    """A value: ``{{ text }}``."""
    return f"{_MARK}{text}{_MARK}"


def block(text: str) -> str:
    """A mapping or list, as YAML below its key."""
    return f"{_MARK}block {text}{_MARK}"


def line(text: str, number: int = 0) -> str:
    """An action on a line of its own: in a list an item, in a mapping a key (with a number)."""
    return f"{_MARK}line {text}{f'#{number}' if number else ''}{_MARK}"


def template(body: Mapping[str, Any], condition: str = "") -> str:
    """An object with expressions as the text of a template."""
    text = documents.to_yaml(body)

    def indented(match: re.Match[str]) -> str:
        indent, key, action = match.groups()
        below = len(indent) + 2
        return f"{indent}{key}:\n{' ' * below}{{{{- toYaml {action} | nindent {below} }}}}"

    text = _BLOCK.sub(indented, text)
    text = _LINE.sub(lambda match: f"{{{{- {match[1]} }}}}", text)
    text = _VALUE.sub(lambda match: f"{{{{ {match[1]} }}}}", text)
    return f"{{{{- if {condition} }}}}\n{text}{{{{- end }}}}\n" if condition else text


def chart(
    work: workload.Workload, key: manifests.Key, settings: KubernetesSettings
) -> list[PlannedFile]:
    """All files of the chart ``helm/NAME``; its values are by default the settings."""
    folder = f"helm/{work.name}"
    values = _values(work, key, settings)
    about = {
        "apiVersion": "v2",
        "name": work.name,
        "description": f"Serves the model package {work.package}",
        "type": "application",
        # Build metadata may be any hexadecimal number; a pre-release may not begin with 0.
        "version": f"1.0.0+{work.version}",
        "appVersion": work.version,
        "kubeVersion": ">=1.27.0-0",
    }
    files = [
        PlannedFile(f"{folder}/Chart.yaml", documents.to_yaml(about), "the chart"),
        PlannedFile(
            f"{folder}/values.yaml", documents.to_yaml(values, comment=_ABOUT), "its values"
        ),
        PlannedFile(f"{folder}/values.schema.json", documents.to_json(_SCHEMA), "what they may be"),
    ]  # fmt: skip
    files += [
        PlannedFile(f"{folder}/templates/{name}.yaml", text, f"template: {purpose}")
        for name, (text, purpose) in _templates(_template_workload(work)).items()
    ]
    notes = PlannedFile(f"{folder}/templates/NOTES.txt", _NOTES, "what helm prints afterwards")
    return [*files, notes]


_ABOUT: Final = """\
Values of the chart; values.schema.json says what they may be.
Either keySecret names a Secret's entry with the clients' key, or anonymous is true.
networkPolicy.from are the peers that may ask: an Ingress or a ServiceMonitor that is switched on
here needs the namespace of the Ingress controller or of Prometheus among them; []: everybody."""

_SCALED: Final = "gt (int .Values.autoscaling.maxReplicas) (int .Values.replicas)"
_KEYED: Final = ".Values.keySecret.name"


def _template_workload(work: workload.Workload) -> workload.Workload:
    """`work` with expressions in place of what the values decide."""
    secret, entry = (expression(f"{_KEYED} | quote"), expression(".Values.keySecret.key | quote"))
    variable, mount, volume = manifests.key_parts(secret, entry)
    own = {"MODELPORT_API_KEY_FILE", "MODELPORT_ALLOW_ANONYMOUS"}
    fixed = [item for item in work.environment if item["name"] not in own]
    if_key, otherwise, end = line(f"if {_KEYED}"), line("else"), line("end")
    extra = [line("with .Values.env"), line("toYaml . | nindent 12"), end]
    choice = [if_key, variable, otherwise, manifests.anonymous_part(), end]
    return replace(
        work,
        name=expression(".Release.Name | quote"),
        namespace=expression(".Release.Namespace | quote"),
        version=expression(".Chart.AppVersion | quote"),
        image=expression(".Values.image | quote"),
        resources=block(".Values.resources"),
        environment=[*fixed, *choice, *extra],
        mounts=[if_key, mount, end],
        volumes=[if_key, volume, end],
        peers=block(".Values.networkPolicy.from"),
        scaling={
            "minReplicas": expression("int .Values.replicas"),
            "maxReplicas": expression("int .Values.autoscaling.maxReplicas"),
            "utilization": expression("int .Values.autoscaling.utilization"),
        },
        fixed={
            line(f"if not ({_SCALED})"): None,
            "replicas": expression("int .Values.replicas"),
            line("end", 1): None,
        },
        placement={
            line("with .Values.pullSecret"): None,
            "imagePullSecrets": [{"name": expression(". | quote")}],
            line("end", 1): None,
            line("with .Values.nodeSelector"): None,
            "nodeSelector": block("."),
            line("end", 2): None,
            line("with .Values.tolerations"): None,
            "tolerations": block("."),
            line("end", 3): None,
        },
    )


def _templates(work: workload.Workload) -> dict[str, tuple[str, str]]:
    route = {
        line("with .Values.ingress.className"): None,
        "ingressClassName": expression(". | quote"),
        line("end", 1): None,
        line("with .Values.ingress.tlsSecret"): None,
        "tls": [
            {
                "hosts": [expression("$.Values.ingress.host | quote")],
                "secretName": expression(". | quote"),
            }
        ],
        line("end", 2): None,
    }
    credentials = {
        "name": expression(f"{_KEYED} | quote"),
        "key": expression(".Values.keySecret.key | quote"),
    }
    authorization = {
        line(f"if {_KEYED}"): None,
        "authorization": {"type": "Bearer", "credentials": credentials},
        line("end", 1): None,
    }
    labels = {
        line("with .Values.serviceMonitor.labels"): None,
        line("toYaml . | nindent 4"): None,
        line("end", 2): None,
    }
    policy = template(surroundings.network_policy(work))
    scaler = template(surroundings.autoscaler(work), _SCALED)
    monitor = surroundings.service_monitor(work, labels, authorization)
    ingress = surroundings.ingress(work, expression(".Values.ingress.host | quote"), route)
    return {
        "service-account": (template(workload.service_account(work)), "the account"),
        "network-policy": (_open_policy(policy), "who may ask"),
        "service": (template(surroundings.service(work)), "the address in the cluster"),
        "pod-disruption-budget": (template(surroundings.disruption_budget(work)), "drains"),
        "deployment": (_GUARD + template(workload.deployment(work)), "the replicas"),
        "horizontal-pod-autoscaler": (scaler, "their number"),
        "ingress": (template(ingress, ".Values.ingress.host"), "the address outside"),
        "service-monitor": (template(monitor, ".Values.serviceMonitor.enabled"), "metrics"),
    }


def _open_policy(text: str) -> str:
    """No list of peers means everybody, and an empty one is the same: leave it out."""
    return re.sub(
        r"^( *)from:\n( *)(\{\{-? toYaml .+\}\})$",
        r"{{- if .Values.networkPolicy.from }}\n\1from:\n\2\3\n{{- end }}",
        text,
        flags=re.MULTILINE,
    )


#: One of the two has to be chosen, as for the manifests.
_GUARD: Final = f"""\
{{{{- if eq (not {_KEYED}) (not .Values.anonymous) }}}}
{{{{- fail "set keySecret.name and keySecret.key, or anonymous=true: not both, not neither" }}}}
{{{{- end }}}}
{{{{- if and {_KEYED} (not .Values.keySecret.key) }}}}
{{{{- fail "keySecret.key is missing: the name of the entry in the Secret" }}}}
{{{{- end }}}}
"""

_NOTES: Final = f"""\
{{{{ .Chart.Description }}}}

In the cluster:  http://{{{{ .Release.Name }}}}.{{{{ .Release.Namespace }}}}.svc
{{{{- with .Values.ingress.host }}}}
Outside:         http{{{{ if $.Values.ingress.tlsSecret }}}}s{{{{ end }}}}://{{{{ . }}}}
{{{{- end }}}}
{{{{- if {_KEYED} }}}}
Clients show the key of the Secret {{{{ {_KEYED} }}}}: "Authorization: Bearer KEY".
{{{{- else }}}}
There is no key: everybody whom the NetworkPolicy lets in may ask.
{{{{- end }}}}

kubectl -n {{{{ .Release.Namespace }}}} rollout status deployment/{{{{ .Release.Name }}}}
kubectl -n {{{{ .Release.Namespace }}}} port-forward service/{{{{ .Release.Name }}}} 8080:http
"""


def _values(
    work: workload.Workload, key: manifests.Key, settings: KubernetesSettings
) -> dict[str, Any]:
    return {
        "image": work.image,
        "replicas": settings.replicas,
        "autoscaling": {"maxReplicas": settings.max_replicas, "utilization": settings.utilization},
        "resources": work.resources,
        "pullSecret": settings.pull_secret,
        "keySecret": {"name": key.secret, "key": key.entry},
        "anonymous": not key.secret,
        "networkPolicy": {"from": work.peers},
        "ingress": {
            "host": settings.host,
            "className": settings.ingress_class,
            "tlsSecret": settings.tls_secret,
        },
        "serviceMonitor": {
            "enabled": settings.service_monitor,
            "labels": monitor_labels(settings),
        },
        "env": [],
        "nodeSelector": {},
        "tolerations": [],
    }


def _shape(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": properties}


_TEXT: Final = {"type": "string"}
_TEXTS: Final = {"type": "object", "additionalProperties": {"type": "string"}}
_COUNT: Final = {"type": "integer", "minimum": 1}
_AMOUNTS: Final = _shape(
    cpu={"type": ["string", "number"]}, memory=_TEXT, **{"ephemeral-storage": _TEXT}
)
_SCHEMA: Final = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    **_shape(
        image={**_TEXT, "minLength": 1},
        replicas=_COUNT,
        autoscaling=_shape(
            maxReplicas=_COUNT, utilization={"type": "integer", "minimum": 1, "maximum": 100}
        ),
        resources=_shape(requests=_AMOUNTS, limits=_AMOUNTS),
        pullSecret=_TEXT,
        keySecret=_shape(name=_TEXT, key=_TEXT),
        anonymous={"type": "boolean"},
        networkPolicy=_shape(**{"from": {"type": "array", "items": {"type": "object"}}}),
        ingress=_shape(host=_TEXT, className=_TEXT, tlsSecret=_TEXT),
        serviceMonitor=_shape(enabled={"type": "boolean"}, labels=_TEXTS),
        env={"type": "array", "items": {"type": "object", "required": ["name"]}},
        nodeSelector=_TEXTS,
        tolerations={"type": "array", "items": {"type": "object"}},
        **{"global": {"type": "object"}},
    ),
    "required": ["image", "replicas", "autoscaling", "resources"],
}
