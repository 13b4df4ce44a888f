{{- define "dagster.fullname" -}}{{ .Release.Name }}-dagster{{- end -}}
{{- define "dagster.account" -}}{{ .Values.global.serviceAccountName | default .Values.serviceAccount.name | default (include "dagster.fullname" .) }}{{- end -}}
{{- define "dagster.imageOf" -}}{{ if .image.digest }}{{ .image.repository }}@{{ .image.digest }}{{ else }}{{ .image.repository }}:{{ .image.tag | default .chart.Version }}{{ end }}{{- end -}}
{{- /* As in the official chart (templates/helpers/_helpers.tpl, dagster.externalPostgresImage.name): the registry comes first. */}}
{{- define "dagster.postgresImageOf" -}}{{ .registry }}/{{ .repository }}:{{ .tag }}{{- end -}}
{{- define "dagster.passwordOf" -}}
- name: DAGSTER_PG_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ .Values.global.postgresqlSecretName | quote }}, key: postgresql-password}}
{{- end -}}
