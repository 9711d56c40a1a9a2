{{- /* Labels of every object, besides its name. */ -}}
{{- define "noderestrict.labels" -}}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "noderestrict.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}{{ with .tag }}:{{ . }}{{ end }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end }}

{{- define "noderestrict.failurePolicy" -}}
{{ ternary "Fail" "Ignore" (eq .Values.mode "enforce") }}
{{- end }}

{{- /* Whom API servers call. */ -}}
{{- define "noderestrict.clientConfig" -}}
{{- if eq .Values.placement "control-plane" -}}
{{ dict "url" (printf "https://127.0.0.1:%d/validate" (int .Values.port)) | toJson }}
{{- else -}}
{{ dict "service" (dict "name" "noderestrict" "namespace" .Release.Namespace "path" "/validate") | toJson }}
{{- end -}}
{{- end }}

{{- /* The same, as an API server keeps it; the nulls make an apply remove what others have set. */ -}}
{{- define "noderestrict.webhookClient" -}}
{{- $client := include "noderestrict.clientConfig" . | fromJson -}}
{{- if $client.service -}}
{{- $_ := set $client.service "port" 443 -}}
{{- $_ := set $client "url" nil -}}
{{- else -}}
{{- $_ := set $client "service" nil -}}
{{- end -}}
{{ toJson $client }}
{{- end }}

{{- /* Whether token requests of pods on the way to a Service are left out. */ -}}
{{- define "noderestrict.infrastructure" -}}
{{- if and (eq .Values.mode "enforce") (eq .Values.placement "service") .Values.infrastructureAccounts -}}true{{- end -}}
{{- end }}

{{- /* What the server expects to be registered. */ -}}
{{- define "noderestrict.expectedRegistration" -}}
{"name":"REGISTRATION","clientConfig":{{ include "noderestrict.clientConfig" . }},"failurePolicy":"{{ include "noderestrict.failurePolicy" . }}","timeoutSeconds":3
{{- if include "noderestrict.infrastructure" . -}}
,"infrastructure":{"accounts":{{ toJson .Values.infrastructureAccounts }},"audiences":{{ toJson (.Values.apiAudiences | default (list @AUDIENCES@)) }}}
{{- end -}}
}
{{- end }}

{{- /* A list in CEL. */ -}}
{{- define "noderestrict.celList" -}}
[{{ range $index, $text := . }}{{ if $index }}, {{ end }}'{{ $text }}'{{ end }}]
{{- end }}

{{- define "noderestrict.notInfrastructure" -}}
@NOT_INFRASTRUCTURE@
{{- end }}

{{- /* The registration, without a CA: our Job puts it in, and no upgrade changes it. */ -}}
{{- define "noderestrict.registration" -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata:
  name: REGISTRATION
  annotations:
    argocd.argoproj.io/sync-wave: '1'
  labels:
    app.kubernetes.io/name: noderestrict
    app.kubernetes.io/part-of: noderestrict
    {{- include "noderestrict.labels" . | nindent 4 }}
webhooks:
{{- $infrastructure := include "noderestrict.infrastructure" . }}
{{- $given := .Values.policy.webhooks | default (.Files.Get "files/webhooks.yaml" | fromYamlArray) }}
{{- range $given }}
{{- $webhook := deepCopy . }}
{{- $_ := set $webhook "clientConfig" (include "noderestrict.webhookClient" $ | fromJson) }}
{{- $_ := set $webhook "failurePolicy" (include "noderestrict.failurePolicy" $) }}
{{- if and $infrastructure (eq .name "tokens.noderestrict.io") }}
{{- $condition := dict "name" "not-infrastructure-token" "expression" (include "noderestrict.notInfrastructure" $) }}
{{- $_ := set $webhook "matchConditions" (list $condition) }}
{{- end }}
{{ list $webhook | toYaml }}
{{- end }}
{{- end }}

{{- /* A registration that concerns nothing but a ConfigMap that is never created: it shows whether
API servers get answers, in audit mode as well. */ -}}
{{- define "noderestrict.served" -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata:
  name: noderestrict-served
  labels:
    app.kubernetes.io/name: noderestrict
    app.kubernetes.io/part-of: noderestrict
    {{- include "noderestrict.labels" . | nindent 4 }}
webhooks:
- name: served.noderestrict.io
  clientConfig: {{ include "noderestrict.webhookClient" . }}
  objectSelector:
    matchExpressions:
    - key: noderestrict.io/served
      operator: Exists
  rules:
  - apiGroups: ['']
    apiVersions: [v1]
    operations: [CREATE]
    resources: [configmaps]
    scope: Namespaced
  matchConditions:
  - name: named
    expression: request.name == 'noderestrict-served' && request.namespace == '{{ .Release.Namespace }}'
  admissionReviewVersions: [v1]
  sideEffects: None
  failurePolicy: Fail
  timeoutSeconds: 3
{{- end }}

{{- /* Arguments of the server that depend on values. */ -}}
{{- define "noderestrict.arguments" -}}
- {{ printf "--expected-registration=%s" (include "noderestrict.expectedRegistration" .) | quote }}
{{- range .Values.policy.flags }}
- {{ . | quote }}
{{- end }}
{{- with .Values.apiAudiences }}
- {{ printf "--api-audiences=%s" (join "," .) | quote }}
{{- end }}
{{- include "noderestrict.apiServers" . }}
{{- range $name, $_ := .Values.policy.agents }}
- {{ printf "--agents=/etc/noderestrict/agents/%s" $name | quote }}
{{- end }}
{{- if ne .Values.mode "enforce" }}
- --mode={{ .Values.mode }}
{{- end }}
{{- with .Values.ruleModes }}
{{- $modes := list }}
{{- range $rule, $mode := . }}
{{- $modes = append $modes (printf "%s=%s" $rule $mode) }}
{{- end }}
- {{ printf "--rule-modes=%s" (join "," $modes) | quote }}
{{- end }}
{{- if .Values.clientVerification }}
- --client-ca-file=/etc/noderestrict/client-ca/ca.crt
{{- end }}
{{- if .Values.events }}
- --events
{{- end }}
{{- range .Values.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end }}

{{- /* How pods reach API servers: those on the host network without kube-proxy. */ -}}
{{- define "noderestrict.apiServers" -}}
{{- $given := .Values.apiServers }}
{{- if eq .Values.placement "control-plane" }}
{{- $given = $given | default (list "127.0.0.1:6443" "[$(HOST_IP)]:6443") }}
{{- else }}
{{- $remote := list }}
{{- range $given }}
{{- if not (regexMatch "^(127[.]|\\[::1\\]|localhost:)" .) }}
{{- $remote = append $remote . }}
{{- end }}
{{- end }}
{{- $given = $remote }}
{{- end }}
{{- with $given }}
- {{ printf "--api-server=%s" (join "," .) | quote }}
{{- end }}
{{- end }}

{{- /* What labels of nodes must be like that are trusted with our keys and tokens. */ -}}
{{- define "noderestrict.trustedNodes" -}}
{{- if .Values.dedicatedNodes -}}
- key: @DEDICATED@
  operator: In
  values:
  - trusted
{{- else -}}
- key: node-role.kubernetes.io/control-plane
  operator: Exists
{{- end -}}
{{- end }}

{{- define "noderestrict.dedicatedToleration" -}}
- key: @DEDICATED@
  operator: Exists
{{- end }}
