"""Writes a model card with the metadata that the Hugging Face hub reads."""

import json

from data_pipelines.io.types import JsonObject


def make_card(
  description: JsonObject, *, repository: str, license_name: str
) -> str:
  """Returns a release's model card, which begins with lines for the hub.

  The licence is one of the hub's identifiers.
  """
  import huggingface_hub

  scores = description.get('scores', {}).get('all', {})
  results = [
    huggingface_hub.EvalResult(
      task_type='image-segmentation',
      dataset_type='held-out',
      dataset_name="the training data's own val rows",
      metric_type=metric,
      metric_name=name,
      metric_value=scores[metric],
    )
    for metric, name in (('iou', 'IoU'), ('mae', 'MAE'))
    if metric in scores
  ]
  name = repository.partition('/')[2]
  data = huggingface_hub.ModelCardData(
    license=license_name,
    # The hub asks for these two where it does not know the licence.
    license_name='see-card' if license_name == 'other' else None,
    license_link='README.md' if license_name == 'other' else None,
    library_name='rmbg-u2net-jax',
    pipeline_tag='image-segmentation',
    tags=['background-removal', 'matting', 'jax', 'flax'],
    model_name=name if results else None,  # Scores need one.
    eval_results=results or None,
  )
  terms = (
    description.get('terms')
    or description.get('license')
    or (license_name if license_name != 'other' else 'Not stated.')
  )
  # Of weights that others published.
  origins = [
    f'{label}: {description[key]}'
    for label, key in (('Source', 'source'), ('Please cite', 'citation'))
    if key in description
  ]
  described = (description, *description.get('partners', ()))
  sources = dict.fromkeys(
    source for one in described for source in one.get('training_data') or ()
  )
  networks = [
    f'Input {"x".join(map(str, one["preprocessing"]["size"]))}:\n\n'
    f'```json\n{json.dumps(one["architecture"], indent=2)}\n```'
    for one in described
  ]
  about = (
    'In the header of `model.safetensors` are the architecture and the '
    'preprocessing; no pickle is in it.'
  )
  if len(described) > 1:
    about += ' The answers of its networks are averaged.'
  sections = {
    'The network': '\n\n'.join([about, *networks]),
    'Training data': ', '.join(sources) or 'Not stated.',
    'Terms of the weights': '\n\n'.join([terms, *origins]),
  }
  table = [
    f'| {source} | {score.get("images", "")} | {score["mae"]:.3f} | '
    f'{score["iou"]:.3f} |'
    for source, score in description.get('scores', {}).items()
    if {'mae', 'iou'} <= set(score)
  ]
  if table:
    head = ['| source | images | MAE | IoU |', '|---|---:|---:|---:|']
    sections['Scores'] = (
      'On rows of the training data that it was not trained on, alpha at the '
      "photo's own size.\n\n" + '\n'.join([*head, *table])
    )
  parts = [
    f'---\n{data.to_yaml()}\n---',
    f'# {name}',
    'Removes the background from photographs: a network for '
    '[RMBG-U2NET for JAX](https://github.com/rmbg-u2net/rmbg-u2net-jax).',
    '```bash\n'
    f'python -m rmbg_jax.predict --checkpoint=hf://{repository} \\\n'
    '  --input=PHOTOS --output=OUT\n'
    '```',
    *(f'## {title}\n\n{text}' for title, text in sections.items()),
  ]
  return '\n\n'.join(parts) + '\n'
