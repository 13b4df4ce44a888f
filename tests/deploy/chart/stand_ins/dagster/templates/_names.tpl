{{- define "dagster.fullname" -}}{{ .Release.Name }}-dagster{{- end -}}
{{- define "dagster.account" -}}{{ .Values.global.serviceAccountName | default .Values.serviceAccount.name | default (include "dagster.fullname" .) }}{{- end -}}
{{- define "dagster.imageOf" -}}{{ .image.repository }}:{{ .image.tag | default .chart.Version }}{{- end -}}
{{- define "dagster.passwordOf" -}}
- name: DAGSTER_PG_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ .Values.global.postgresqlSecretName | quote }}, key: postgresql-password}}
{{- end -}}
