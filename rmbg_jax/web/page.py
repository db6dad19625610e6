"""Builds the page, and its interface for scripts."""

import html
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from data_pipelines.io import errors
from rmbg_jax.web import options as options_lib
from rmbg_jax.web import service as service_lib
from rmbg_jax.weights import catalogue

TITLE = 'Remove backgrounds'

_LIMITED: dict[str, Any] = {
  'concurrency_limit': service_lib.AT_ONCE,
  'concurrency_id': 'photos',
}
# Seconds: how often Gradio looks for old files, and how old they get.
_DELETE_CACHE = (300, service_lib.KEPT_SECONDS)

# Gradio finds it among a function's defaults, and passes one of the call's own.
_PROGRESS = gr.Progress()

_SENTENCE = (
  'Drop photographs of people, animals or things; get them back cut out, at '
  'their own size. They stay on the machine that runs this page.'
)
# Browsers show transparency as nothing; people know it as squares.
CSS = """
.gradio-container { max-width: 1080px !important; margin: 0 auto !important; }
main { width: 100% !important; }
#title h1 { margin-bottom: .3em; }
#result img.fixed {
  background: repeating-conic-gradient(#ccc 0 25%, #fff 0 50%) 0 0 / 20px 20px
    !important;
}
#gallery .grid-wrap { padding-top: 2em; }
#gallery .grid-container {
  grid-template-columns: repeat(auto-fill, minmax(96px, 1fr)) !important;
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
      label='Photos', file_count='multiple', height=180, elem_id='photos'
    )
    inputs = [photos, *_add_options(service)]
    button = gr.Button('Remove background', elem_id='run')
    results = _Results()

    # By component: only the endpoint for scripts has names for them.
    def show(values, progress=_PROGRESS):
      answer = _ask(service, progress, *(values[one] for one in inputs))
      if answer.failures:
        gr.Warning('Some files could not be used; they are named on the page.')
      return results.update(answer)

    gr.on(
      [photos.upload, button.click],
      show,
      set(inputs),
      results.components,
      show_progress_on=[photos],
      # Not for scripts, which have `remove_background`.
      api_visibility='private',
      **_LIMITED,
    )
    with gr.Accordion('Models, and what may be done with them', open=False):
      models = catalogue.list_checkpoints()
      gr.Markdown(catalogue.format_page(models), elem_id='models')
    _add_interface(service, inputs)
  return page


class _Results:
  """The results below the button, hidden until there are some."""

  def __init__(self):
    """Adds the components to the page that is being made."""
    self._problems = gr.HTML(visible=False, elem_id='problems')
    with gr.Column(visible=False) as self._column:
      self._gallery = gr.Gallery(
        label='Photos done: choose one',
        height=160,
        object_fit='contain',
        allow_preview=False,
        interactive=False,
        buttons=[],
        elem_id='gallery',
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
        self._archive = gr.DownloadButton(
          'Download all (zip)', elem_id='archive'
        )
      with gr.Accordion('All files', open=False), gr.Row():
        # Gradio deletes old files only if a component holds them.
        self._images = gr.File(label='Results', interactive=False)
        self._masks = gr.File(label='Masks', interactive=False)
    # Each visitor has a state.
    self._done = gr.State([])
    self._chosen = [slider, mask, download]
    # All that `update` may change.
    self.components: list[gr.blocks.Block] = [
      self._problems,
      self._column,
      self._gallery,
      self._archive,
      self._images,
      self._masks,
      self._done,
      *self._chosen,
    ]
    self._gallery.select(
      self._choose,
      [self._done],
      self._chosen,
      queue=False,  # Nothing is computed.
      api_visibility='private',
    )

  def update(self, answer: service_lib.Answer) -> dict[gr.blocks.Block, Any]:
    """Returns the components' new values."""
    found = list(answer.results)
    lines = list(answer.failures)
    for one in found:
      lines += [f'{one.name}: {note}.' for note in one.entry.notes]
    # Names are visitors' own, and shown as HTML.
    problems = ''.join(f'<p>{html.escape(line)}</p>' for line in lines)
    values = {
      self._problems: gr.update(value=problems, visible=bool(problems)),
      self._column: gr.update(visible=bool(found)),
      self._done: found,
    }
    if not found:
      return values
    several = len(found) > 1
    return {
      **values,
      **dict(zip(self._chosen, _show_one(found[0]), strict=True)),
      self._gallery: gr.update(
        value=[(str(one.shown), one.name) for one in found],
        selected_index=0,
        visible=several,
      ),
      self._archive: gr.update(
        value=service_lib.save_zip(found) if several else None, visible=several
      ),
      self._images: [str(one.image) for one in found],
      self._masks: [str(one.mask) for one in found],
    }

  def _choose(self, found, event: gr.SelectData):
    return _show_one(found[event.index])


def _add_interface(
  service: service_lib.Service, inputs: list[gr.components.Component]
) -> None:
  """Adds the endpoint for scripts, and what it needs, unseen."""
  with gr.Row(visible=False):
    button = gr.Button()
    results = gr.File(label='results', file_count='multiple')
    masks = gr.File(label='masks', file_count='multiple')
    report = gr.JSON(label='report')

  def remove_background(
    photos,
    background,
    colour,
    picture=None,  # Clients may leave it out.
    edges='',
    checkpoint='',
    kind='',
    progress=_PROGRESS,
  ):
    """Cuts out photos; returns the files of results and masks, and a report."""
    options = background, colour, picture, edges, checkpoint, kind
    answer = _ask(service, progress, photos, *options)
    if not answer.results:
      raise gr.Error('\n'.join(answer.failures), print_exception=False)
    done = [
      {
        'photo': one.name,
        'width': one.entry.width,
        'height': one.entry.height,
        'notes': one.entry.notes,
      }
      for one in answer.results
    ]
    return (
      [str(one.image) for one in answer.results],
      [str(one.mask) for one in answer.results],
      {'done': done, 'failed': answer.failures},
    )

  button.click(
    remove_background,
    inputs,
    [results, masks, report],
    api_name='remove_background',
    **_LIMITED,
  )


def _add_options(service: service_lib.Service) -> list[gr.components.Component]:
  """Adds the inputs beside the photos, in the order of the functions'."""
  with gr.Accordion('Options', open=False):
    with gr.Row():
      background = _add_radio('Background', options_lib.BACKGROUNDS)
      colour = gr.ColorPicker(value='#ffffff', label='Colour', visible=False)
      picture = gr.File(label='Picture', visible=False, height=120)
    methods = dict(options_lib.EDGES)
    if importlib.util.find_spec('pymatting') is None:
      del methods['matting']
    edges = _add_radio('Edges', methods)
    checkpoint = gr.Dropdown(
      list(service.checkpoints),
      value=service.checkpoints[0],
      label='Checkpoint',
      visible=len(service.checkpoints) > 1,
    )
    kind = _add_radio('Result', options_lib.KINDS)
  # Only the input that the background needs is shown.
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
  return [background, colour, picture, edges, checkpoint, kind]


def _add_radio(label: str, titles: Mapping[str, str]) -> gr.Radio:
  """Adds a choice of values with titles, the first as the default."""
  offered = [(title, value) for value, title in titles.items()]
  return gr.Radio(offered, value=next(iter(titles)), label=label)


def _ask(service, progress, photos, *options) -> service_lib.Answer:
  """Passes a request on; its errors are shown to the user."""
  try:
    return service.cut_out(
      [Path(photo) for photo in photos or []],
      options_lib.Options(*options),
      report_progress=lambda *counts: progress(counts, unit='photos'),
    )
  except errors.UserError as error:
    # Gradio shows it as HTML.
    message = html.escape(str(error), quote=False)
    raise gr.Error(message, print_exception=False) from error
  except OSError as error:
    # The error's own text has a path of the server, not for visitors.
    reason = error.strerror or type(error).__name__
    message = f'The server cannot do it now: {reason}.'
    raise gr.Error(message) from error


def _show_one(result: service_lib.Result) -> tuple[Any, ...]:
  """Returns the values of slider, mask and download button."""
  image = str(result.image)
  return (str(result.shown), image), str(result.mask), image
