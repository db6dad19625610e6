"""What is seen of the page, and its interface for scripts."""

import html
import importlib.util
from pathlib import Path
from typing import Any

import gradio as gr

from rmbg_jax.prediction import refinement
from rmbg_jax.web import service as service_lib

TITLE = 'Remove backgrounds'

# Requests that are worked on at once; each uses all cores.
_WORKERS = 2
# Seconds: how often Gradio looks for old files, and how old they get.
_DELETE_CACHE = (300, 3600)

# Gradio finds it among a function's defaults, and passes one of the call's own.
_PROGRESS = gr.Progress()

_SENTENCE = (
  'Drop photographs of people, animals or things; get them back cut out, at '
  'their own size. They stay on the machine that runs this page.'
)
_BACKGROUNDS = {
  'transparent': 'Transparent',
  'colour': 'Colour',
  'blur': 'Blurred',
  'picture': 'Own picture',
}
_EDGES = {
  'none': 'As the network gives them',
  'guided': "Along the photo's edges",
  'matting': 'Matting (seconds a photo)',
}

# Browsers show transparency as nothing; people know it as squares.
CSS = """
.gradio-container { max-width: 1080px !important; margin: 0 auto !important; }
main { width: 100% !important; }
#title h1 { margin-bottom: .3em; }
#result img.fixed {
  background: repeating-conic-gradient(#ccc 0 25%, #fff 0 50%) 0 0 / 20px 20px
    !important;
}
#problems { border-left: 3px solid #d97706; padding: .4em .8em; }
footer .divider { display: none !important; }
"""

THEME = gr.themes.Default(
  primary_hue='blue',
  neutral_hue='slate',
  font=[gr.themes.Font('system-ui'), gr.themes.Font('sans-serif')],
  font_mono=[gr.themes.Font('ui-monospace'), gr.themes.Font('monospace')],
)


def make_page(service: service_lib.Service) -> gr.Blocks:
  """Returns the page of a service, ready to be launched.

  The endpoint `remove_background` is for scripts; `docs/app.md` describes it.
  """
  with gr.Blocks(
    title=TITLE, analytics_enabled=False, delete_cache=_DELETE_CACHE
  ) as page:
    gr.Markdown(f'# {TITLE}\n{_SENTENCE}', elem_id='title')
    photos = gr.File(
      label='Photos',
      file_count='multiple',
      height=180,
      elem_id='photos',
    )
    options = _add_options(service)
    button = gr.Button('Remove background', elem_id='run')
    problems = gr.HTML(visible=False, elem_id='problems')
    with gr.Column(visible=False, elem_id='results') as column:
      gallery = gr.Gallery(
        label='Photos done: choose one',
        columns=6,
        height=180,
        object_fit='contain',
        fit_columns=False,
        allow_preview=False,
        interactive=False,
        buttons=[],
      )
      with gr.Row():
        slider = gr.ImageSlider(
          label='Photo and result',
          buttons=['fullscreen'],
          max_height=560,
          elem_id='result',
          scale=2,
        )
        mask = gr.Image(
          label='Mask',
          type='filepath',
          buttons=['download', 'fullscreen'],
          elem_id='mask',
          scale=1,
        )
      with gr.Row():
        download = gr.DownloadButton(
          'Download PNG', variant='primary', elem_id='download'
        )
        archive = gr.DownloadButton('Download all (zip)', elem_id='archive')
      with gr.Accordion('All files', open=False):
        files = gr.File(
          show_label=False, file_count='multiple', interactive=False
        )
    done = gr.State([])
    with gr.Row(visible=False):  # Of scripts alone.
      call = gr.Button()
      results = gr.File(label='results', file_count='multiple')
      masks = gr.File(label='masks', file_count='multiple')
      report = gr.JSON(label='report')

    chosen = [slider, mask, download]

    def show(
      photos,
      background,
      colour,
      picture,
      edges,
      checkpoint,
      progress=_PROGRESS,
    ):
      answer = _ask(
        service,
        photos,
        background,
        colour,
        picture,
        edges,
        checkpoint,
        progress,
      )
      if answer.failures:
        gr.Warning('Some files could not be used; they are named on the page.')
      found = list(answer.results)
      update = {
        problems: gr.update(
          value=_list_problems(answer), visible=bool(_list_problems(answer))
        ),
        column: gr.update(visible=bool(found)),
        done: found,
      }
      if not found:
        return update
      update |= dict(zip(chosen, _show_one(found[0]), strict=True))
      several = len(found) > 1
      zipped = service_lib.save_zip(found) if several else None
      update |= {
        gallery: gr.update(
          value=[(str(one.shown), one.name) for one in found],
          visible=several,
        ),
        archive: gr.update(value=zipped, visible=several),
        files: [str(one.image) for one in found]
        + [str(one.mask) for one in found],
      }
      return update

    def choose(found, event: gr.SelectData):
      return _show_one(found[event.index])

    def remove_background(
      photos,
      background,
      colour,
      picture=None,
      edges='none',
      checkpoint='',
      progress=_PROGRESS,
    ):
      answer = _ask(
        service,
        photos,
        background,
        colour,
        picture,
        edges,
        checkpoint,
        progress,
      )
      if not answer.results:
        raise gr.Error('\n'.join(answer.failures), print_exception=False)
      return (
        [str(one.image) for one in answer.results],
        [str(one.mask) for one in answer.results],
        {
          'done': [
            {
              'photo': one.name,
              'width': one.width,
              'height': one.height,
              'notes': list(one.notes),
            }
            for one in answer.results
          ],
          'failed': list(answer.failures),
        },
      )

    inputs = [photos, *options]
    limited = {'concurrency_limit': _WORKERS, 'concurrency_id': 'photos'}
    gr.on(
      [photos.upload, button.click],
      show,
      inputs,
      [problems, column, done, *chosen, gallery, archive, files],
      show_progress_on=[photos],
      api_visibility='private',
      **limited,
    )
    gallery.select(
      choose, [done], chosen, queue=False, api_visibility='private'
    )
    call.click(
      remove_background,
      inputs,
      [results, masks, report],
      api_name='remove_background',
      **limited,
    )
  return page


def _add_options(service: service_lib.Service) -> list[gr.components.Component]:
  """Adds the inputs beside the photos, in the order of the functions'."""
  with gr.Accordion('Options', open=False):
    with gr.Row():
      background = gr.Radio(
        [(label, value) for value, label in _BACKGROUNDS.items()],
        value='transparent',
        label='Background',
      )
      colour = gr.ColorPicker(value='#ffffff', label='Colour', visible=False)
      picture = gr.File(label='Picture', visible=False, height=120)
    has_matting = importlib.util.find_spec('pymatting') is not None
    edges = gr.Radio(
      [
        (_EDGES[method], method)
        for method in refinement.METHODS
        if has_matting or method != 'matting'
      ],
      value='none',
      label='Edges',
    )
    checkpoint = gr.Dropdown(
      list(service.checkpoints),
      value=service.checkpoints[0],
      label='Checkpoint',
      visible=len(service.checkpoints) > 1,
    )
  background.change(
    lambda value: (
      gr.update(visible=value == 'colour'),
      gr.update(visible=value == 'picture'),
    ),
    [background],
    [colour, picture],
    queue=False,
    api_visibility='private',
  )
  return [background, colour, picture, edges, checkpoint]


def _ask(
  service, photos, background, colour, picture, edges, checkpoint, progress
) -> service_lib.Answer:
  """Passes a request on; what it cannot do is shown to the user."""
  options = service_lib.Options(
    checkpoint=checkpoint,
    background=background,
    colour=colour,
    picture=Path(picture) if picture else None,
    edges=edges,
  )
  try:
    return service.cut_out(
      [Path(photo) for photo in photos or []],
      options,
      report_progress=lambda count, total: progress(
        (count, total), unit='photos'
      ),
    )
  except (FileNotFoundError, ValueError) as error:
    raise gr.Error(
      html.escape(str(error), quote=False), print_exception=False
    ) from error


def _show_one(result: service_lib.Result) -> tuple[Any, ...]:
  """The values of slider, mask and download button."""
  return (
    (str(result.shown), str(result.image)),
    str(result.mask),
    str(result.image),
  )


def _list_problems(answer: service_lib.Answer) -> str:
  """What users should know of their files, as HTML; '' if nothing."""
  lines = list(answer.failures)
  for result in answer.results:
    lines += [f'{result.name}: {note}.' for note in result.notes]
  return ''.join(f'<p>{html.escape(line)}</p>' for line in lines)
