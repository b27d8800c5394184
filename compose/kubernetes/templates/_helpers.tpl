{{/* What every template shares: names, labels, the environment, secrets as files, and the one shape of a pod. */}}

{{- define "tp.name" -}}
{{- if contains "taskplatform" .Release.Name -}}
{{ .Release.Name | trunc 24 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-taskplatform" .Release.Name | trunc 24 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{- define "tp.selector" -}}
app.kubernetes.io/name: taskplatform
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "tp.labels" -}}
{{ include "tp.selector" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* One track's image: the canary's own, or the release's. */}}
{{- define "tp.image" -}}
{{- $image := .root.Values.image -}}
{{- $canary := eq .track "canary" -}}
{{- $digest := ternary .root.Values.canary.digest $image.digest $canary -}}
{{- $tag := ternary .root.Values.canary.tag $image.tag $canary -}}
{{- if $digest -}}
{{ $image.repository }}@{{ $digest }}
{{- else -}}
{{ $image.repository }}:{{ $tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* Every pool with what it leaves out, as a list of maps. */}}
{{- define "tp.pools" -}}
{{- $pools := list -}}
{{- range .Values.pools -}}
{{- $pools = append $pools (mustMergeOverwrite (deepCopy $.Values.poolDefaults) (deepCopy .)) -}}
{{- end -}}
{{- dict "pools" $pools | toYaml -}}
{{- end -}}

{{- define "tp.poolNames" -}}
{{- $names := list -}}
{{- range .Values.pools -}}{{- $names = append $names .name -}}{{- end -}}
{{- join "," $names -}}
{{- end -}}

{{/*
The settings that the chart makes itself, by their names in lower case without the prefix, each with the value that decides
about it, or nothing where its templates do.
*/}}
{{- define "tp.owned" -}}
secrets_dir: ""
data_dir: ""
pools: pools
task_modules: taskModules
metrics_host: ""
metrics_port: ""
api_host: ""
api_port: ""
api_processes: api.replicas
api_drain_seconds: api.drainSeconds
api_url: ""
flower_host: ""
flower_port: ""
flower_prefix: ""
worker_pool: pools[].name
worker_kind: pools[].kind
worker_processes: pools[].processes
worker_concurrency_jobs: pools[].concurrency
worker_drain_seconds: pools[].drainSeconds
autoscale_driver: autoscaling.driver
autoscale_service: ""
autoscale_file: pools[].scaling
canary_seconds: exporter.canarySeconds
database_url: secrets.database
database_replica_urls: secrets.replicas
database_cluster_urls: secrets.clusters
broker_url: secrets.broker
cache_url: secrets.cache
signing_keys: secrets.signing
api_key: secrets.canary
autoscale_agent_token: autoscaling.driver
{{- end -}}

{{/* End with an error where a user sets what the chart makes itself. Takes name, in lower case, and place, as the user wrote it. */}}
{{- define "tp.refuseOwned" -}}
{{- $owned := include "tp.owned" . | fromYaml -}}
{{- if hasKey $owned .name -}}
{{- $instead := get $owned .name -}}
{{- fail (printf "%s is set by the chart itself%s" .place (ternary (printf ": use %s" $instead) ", which relies on it" (ne $instead ""))) -}}
{{- end -}}
{{- end -}}

{{/* Settings as environment variables: the platform's, the user's over them, the process's own over those. */}}
{{- define "tp.env" -}}
{{- $root := .root -}}
{{- $env := dict
  "TASKPLATFORM_SECRETS_DIR" "/run/secrets/taskplatform"
  "TASKPLATFORM_DATA_DIR" "/tmp/taskplatform"
  "TASKPLATFORM_POOLS" (include "tp.poolNames" $root)
  "TASKPLATFORM_TASK_MODULES" (join "," $root.Values.taskModules)
  "TASKPLATFORM_METRICS_HOST" "0.0.0.0"
  "TASKPLATFORM_METRICS_PORT" "9100" -}}
{{- range $name, $value := $root.Values.settings -}}
{{- include "tp.refuseOwned" (dict "name" $name "place" (printf "settings.%s" $name)) -}}
{{- $_ := set $env (printf "TASKPLATFORM_%s" (upper $name)) $value -}}
{{- end -}}
{{- range $name, $value := .own -}}{{- $_ := set $env $name $value -}}{{- end -}}
{{- range $name, $value := $env }}
- name: {{ $name }}
  value: {{ (kindIs "string" $value | ternary $value ($value | toJson)) | quote }}
{{- end -}}
{{- end -}}

{{/* One secret as a file that is called like its setting. */}}
{{- define "tp.secretFile" -}}
- secret:
    name: {{ .name }}
    items: [{key: {{ .key }}, path: {{ .setting }}}]
{{- end -}}

{{- define "tp.secretFiles" -}}
{{- $root := .root -}}
{{- $name := include "tp.name" $root -}}
{{- $database := $root.Values.secrets.database -}}
{{- $broker := $root.Values.secrets.broker -}}
{{- if $database.name }}
{{ include "tp.secretFile" (dict "name" $database.name "key" $database.key "setting" "database_url") }}
{{- else if $root.Values.postgres.enabled }}
{{ include "tp.secretFile" (dict "name" (printf "%s-postgres-app" $name) "key" "uri" "setting" "database_url") }}
{{- else }}
{{- fail "secrets.database.name is empty: name a Secret with the connection string of Postgres, or set postgres.enabled" }}
{{- end }}
{{- if $root.Values.secrets.clusters.name }}
{{ include "tp.secretFile" (dict "name" $root.Values.secrets.clusters.name "key" $root.Values.secrets.clusters.key "setting" "database_cluster_urls") }}
{{- end }}
{{- if $broker.name }}
{{ include "tp.secretFile" (dict "name" $broker.name "key" $broker.key "setting" "broker_url") }}
{{- else if $root.Values.rabbitmq.enabled }}
{{ include "tp.secretFile" (dict "name" (printf "%s-rabbitmq-default-user" $name) "key" "connection_string" "setting" "broker_url") }}
{{- else }}
{{- fail "secrets.broker.name is empty: name a Secret with the URL of RabbitMQ, or set rabbitmq.enabled" }}
{{- end }}
{{- if ne .component "init" }}
{{- $signing := $root.Values.secrets.signing }}
{{ include "tp.secretFile" (dict "name" ($signing.name | default (printf "%s-signing" $name)) "key" $signing.key "setting" "signing_keys") }}
{{- end }}
{{- if and (eq .component "api") $root.Values.secrets.replicas.name }}
{{ include "tp.secretFile" (dict "name" $root.Values.secrets.replicas.name "key" $root.Values.secrets.replicas.key "setting" "database_replica_urls") }}
{{- end }}
{{- if and (eq .component "api") $root.Values.secrets.cache.name }}
{{ include "tp.secretFile" (dict "name" $root.Values.secrets.cache.name "key" $root.Values.secrets.cache.key "setting" "cache_url") }}
{{- end }}
{{- if and (eq .component "exporter") (gt (float64 $root.Values.exporter.canarySeconds) 0.0) }}
{{ include "tp.secretFile" (dict "name" (required "exporter.canarySeconds needs secrets.canary.name: a Secret with an API key of the scopes jobs:write and jobs:read" $root.Values.secrets.canary.name) "key" $root.Values.secrets.canary.key "setting" "api_key") }}
{{- end }}
{{- end -}}

{{/*
One pod of the platform. Takes root, component, track, args, env (its own variables), port (name and number of its
health pages), probes (paths, "" where it has none), graceSeconds, resources, and for some: labels, annotations,
envFrom, volumes, mounts, account, temporarySpace, place (nodeSelector, tolerations, affinity, priorityClassName).
*/}}
{{- define "tp.pod" -}}
{{- $root := .root -}}
{{- $place := .place | default $root.Values -}}
metadata:
  # No version of the chart: pods are replaced when something of theirs has changed.
  labels:
    {{- include "tp.selector" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
    taskplatform/track: {{ .track }}
    {{- with .labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- with .account }}
  serviceAccountName: {{ . }}
  {{- end }}
  automountServiceAccountToken: {{ if .account }}true{{ else }}false{{ end }}
  # The variables of service links would be taken for settings.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .graceSeconds }}
  {{- if eq .component "init" }}
  restartPolicy: Never
  {{- end }}
  {{- if eq .component "worker" }}
  # What a job starts and leaves behind becomes a child of the first process: that is then the pod's own, which reaps it.
  shareProcessNamespace: true
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 10001
    runAsGroup: 10001
    fsGroup: 10001
    seccompProfile: {type: RuntimeDefault}
  {{- with $root.Values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  {{- if ne .component "init" }}
  topologySpreadConstraints:
    {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
    - topologyKey: {{ . }}
      maxSkew: 1
      whenUnsatisfiable: ScheduleAnyway
      matchLabelKeys: [pod-template-hash]
      labelSelector:
        matchLabels:
          {{- include "tp.selector" $root | nindent 10 }}
          app.kubernetes.io/component: {{ $.component }}
          {{- with $.labels }}
          {{- toYaml . | nindent 10 }}
          {{- end }}
    {{- end }}
  {{- end }}
  {{- with $place.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $place.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $place.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $place.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  containers:
    - name: {{ .component }}
      image: {{ include "tp.image" (dict "root" $root "track" .track) }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args: {{ .args | toJson }}
      env:
        {{- include "tp.env" (dict "root" $root "own" .env) | trim | nindent 8 }}
      {{- with .envFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .port }}
      ports:
        - {name: {{ .name }}, containerPort: {{ .number }}}
      {{- end }}
      {{- range $probe, $path := .probes }}
      {{ $probe }}Probe:
        httpGet: {path: {{ $path }}, port: {{ $.port.name }}}
        timeoutSeconds: 3
        {{- if eq $probe "startup" }}
        # Five minutes: a restart brings no server back that is away.
        periodSeconds: 2
        failureThreshold: 150
        {{- else if eq $probe "readiness" }}
        periodSeconds: 5
        failureThreshold: 2
        {{- else }}
        periodSeconds: 10
        failureThreshold: 6
        {{- end }}
      {{- end }}
      resources:
        {{- toYaml .resources | nindent 8 }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      volumeMounts:
        - {name: secrets, mountPath: /run/secrets/taskplatform, readOnly: true}
        - {name: tmp, mountPath: /tmp}
        {{- with .mounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: secrets
      projected:
        defaultMode: 0440
        sources:
          {{- include "tp.secretFiles" . | trim | nindent 10 }}
    - name: tmp
      emptyDir: {sizeLimit: {{ .temporarySpace | default "64Mi" }}}
    {{- with .volumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{/*
A Deployment of such pods. Takes what tp.pod takes, and name, replicas (-1 where somebody else counts), maxSurge.
No pod goes before the one that takes its place is ready.
*/}}
{{- define "tp.deployment" -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .name }}
  labels:
    {{- include "tp.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
spec:
  {{- if ge (int .replicas) 0 }}
  replicas: {{ .replicas }}
  {{- end }}
  revisionHistoryLimit: 5
  minReadySeconds: 5
  strategy:
    type: RollingUpdate
    rollingUpdate: {maxUnavailable: 0, maxSurge: {{ .maxSurge | default 1 }}}
  selector:
    matchLabels:
      {{- include "tp.selector" .root | nindent 6 }}
      app.kubernetes.io/component: {{ .component }}
      taskplatform/track: {{ .track }}
      {{- with .labels }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
  template:
    {{- include "tp.pod" . | nindent 4 }}
{{- end -}}

{{/* How much of a component an eviction may take at once. Takes root, name, component, labels, maxUnavailable. */}}
{{- define "tp.disruptions" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ .name }}
  labels:
    {{- include "tp.labels" .root | nindent 4 }}
spec:
  maxUnavailable: {{ .maxUnavailable }}
  # A pod that is not ready does no work that an eviction could end.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "tp.selector" .root | nindent 6 }}
      app.kubernetes.io/component: {{ .component }}
      {{- with .labels }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
{{- end -}}

{{/* The three health pages of a process of ours. */}}
{{- define "tp.probes" -}}
startup: /startupz
readiness: /readyz
liveness: /livez
{{- end -}}
