"""What Helm makes of the chart, as JSON. In: the chart's folder, and values as JSON, several. Out: a line for each: a list of
objects, or `{"refused": why}`. Without arguments but YAML on standard input: that as JSON. Absent: any judgement."""

import json
import sys

import yaml


def objects(texts):
    return [document for text in texts for document in yaml.safe_load_all(text) if document]


def main():
    if len(sys.argv) == 1:
        print(json.dumps(objects([sys.stdin.read()])))
        return
    import helm_python as helm

    folder, *all_values = sys.argv[1:]
    with helm.Chart.load(folder) as chart:
        for values in map(json.loads, all_values):
            try:
                chart.validate_schema(values)
                rendered = chart.render(values, name="gpuspan", namespace="gpuspan")
            except helm.HelmError as error:
                print(json.dumps({"refused": str(error)}))
                continue
            print(json.dumps(objects(text for name, text in sorted(rendered.items()) if name.endswith(".yaml"))))
    print(json.dumps(helm.lint(folder), default=str))


main()
