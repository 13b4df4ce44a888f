{{/* Names. Those of subcharts' objects are what the subcharts make of the release's name. */}}
{{- define "floe.manifests" -}}{{ .Release.Name }}-manifests{{- end -}}
{{- define "floe.postgresql" -}}{{ .Release.Name }}-postgresql{{- end -}}
{{- define "floe.marquez" -}}{{ .Release.Name }}-marquez{{- end -}}
{{- define "floe.bootstrap" -}}{{ .Release.Name }}-bootstrap{{- end -}}
{{- define "floe.preparation" -}}{{ .Release.Name }}-polaris-preparation{{- end -}}
{{- define "floe.outboxClaim" -}}{{ .Values.outbox.persistence.existingClaim | default (printf "%s-outbox" .Release.Name) }}{{- end -}}
{{- define "floe.dagsterAccount" -}}{{ .Values.dagster.serviceAccount.name | default (printf "%s-dagster" .Release.Name) }}{{- end -}}
{{- define "floe.productsAccount" -}}
{{ index .Values.dagster "dagster-user-deployments" "serviceAccount" "name" | default (printf "%s-dagster-user-deployments-user-deployments" .Release.Name) }}
{{- end -}}

{{- define "floe.image" -}}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{- end -}}

{{/* The store or the catalog is part of this release: nothing can be made in it before the release is. */}}
{{- define "floe.bootstrapIsHook" -}}
{{- if eq .Values.bootstrap.mode "hook" -}}true
{{- else if and (eq .Values.bootstrap.mode "auto") (not .Values.minio.enabled) (not .Values.polaris.enabled) -}}true
{{- end -}}
{{- end -}}

{{/* A database or a Secret that comes with the release is not there before it; else Polaris should find its realm at once. */}}
{{- define "floe.preparationIsHook" -}}
{{- if and (not .Values.postgresql.enabled) (not .Values.secrets.generate) -}}true{{- end -}}
{{- end -}}

{{- define "floe.selectorLabels" -}}
app.kubernetes.io/name: floe-platform
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "floe.labels" -}}
{{ include "floe.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: floe-platform
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Pod security standard `restricted`, and a bit more. */}}
{{- define "floe.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .user }}
runAsGroup: {{ .user }}
fsGroup: {{ .user }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "floe.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "floe.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* One of the parts of the flow, by the labels of its pods. */}}
{{- define "floe.pods" -}}
{{- $instance := dict "app.kubernetes.io/instance" .root.Release.Name -}}
{{- $of := dict
  "webserver" (merge (dict "component" "dagster-webserver") $instance)
  "daemon" (merge (dict "component" "dagster-daemon") $instance)
  "code-servers" (merge (dict "component" "user-deployments") $instance)
  "runs" (dict "floe.dev/component" "run")
  "bootstrap" (merge (dict "app.kubernetes.io/name" "floe-platform" "app.kubernetes.io/component" "bootstrap") $instance)
  "test" (merge (dict "app.kubernetes.io/name" "floe-platform" "app.kubernetes.io/component" "test") $instance)
  "postgresql" (merge (dict "app.kubernetes.io/name" "floe-platform" "app.kubernetes.io/component" "postgresql") $instance)
  "marquez" (merge (dict "app.kubernetes.io/name" "floe-platform" "app.kubernetes.io/component" "marquez") $instance)
  "polaris-preparation" (merge (dict "app.kubernetes.io/name" "floe-platform" "app.kubernetes.io/component" "polaris-preparation") $instance)
  "polaris" (merge (dict "app.kubernetes.io/name" "polaris") $instance)
  "collector" (merge (dict "app.kubernetes.io/name" "otel-collector") $instance)
  "minio" (dict "app" "minio" "release" .root.Release.Name)
-}}
{{- get $of .name | toYaml -}}
{{- end -}}

{{/* "true" where a pod's claim of this name is mounted below FLOE_HOME, for whoever writes an outbox. */}}
{{- define "floe.mountsOutbox" -}}
{{- $home := "" -}}
{{- range .pod.env }}{{- if eq .name "FLOE_HOME" }}{{- $home = .value }}{{- end }}{{- end -}}
{{- range $volume := .pod.volumes -}}
{{- if eq (dig "persistentVolumeClaim" "claimName" "" $volume) $.claim -}}
{{- range $.pod.volumeMounts -}}
{{- if and $home (eq .name $volume.name) (eq .mountPath (printf "%s/outbox" $home)) -}}true{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
