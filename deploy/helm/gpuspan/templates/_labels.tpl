{{- define "gpuspan.labels" -}}
app.kubernetes.io/name: gpuspan
app.kubernetes.io/component: agent
{{- end }}
