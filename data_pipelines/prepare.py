r"""Makes one training set of the published ones, in the folder layout.

```bash
python -m data_pipelines.prepare --p3m=DIR --cod10k=DIR --people=DIR \
  --output=DIR
```

Names get their category as a prefix. Photos are upright RGB, masks 8-bit grey
from 0 to 255. The originals are only read. The same command goes on where it
was interrupted, and changes nothing where all is done.
"""

from pathlib import Path

from absl import flags

from data_pipelines import cli
from data_pipelines.datasets import merging, published, records
from data_pipelines.io import errors
from data_pipelines.tools import writing


def main() -> None:
  """Makes the training set; exits with 1 if a file was rejected."""
  out = Path(flags.FLAGS.output)
  share = flags.FLAGS.validation_share
  if share is None:
    share = merging.SHARES[flags.FLAGS.split]
  try:
    everything, unwanted, problems = _read_sources()
    pairs = merging.name_pairs(everything)
    # Split before COD10K's choice: who is held out does not depend on it.
    pairs, left_out = merging.SPLITS[flags.FLAGS.split](pairs, share)
    written, rejected = writing.prepare(
      [pair for pair in pairs if pair.image_path not in unwanted],
      out=out,
      size=flags.FLAGS.size,
      allow_empty=flags.FLAGS.allow_empty_masks,
      invert=flags.FLAGS.invert,
      own=flags.FLAGS.folder or '',
    )
    rejected += [('', problem) for problem in problems]
    writing.write_rejected(out / writing.REJECTED_NAME, rejected)
  except errors.UserError:  # Includes a missing file, which is an OSError too.
    raise
  except OSError as error:
    raise errors.UserError(
      f'cannot write to {out}: {error}. Make room there and run the same '
      'command again; it goes on where it stopped.'
    ) from error
  empty = sum(pair.source == writing.NONCAM for pair in written)
  if empty:
    print(
      f'{empty:,} have empty masks: train with '
      '--config.data.allow_empty_masks=true.'
    )
  print(merging.summarize(written))
  if left_out:
    examples = ', '.join(pair.image_path.name for pair in left_out[:3])
    reason = {
      'original': 'the Keras project does not use P3M-500-P',
      'official': 'under the same names they are tested',
    }[flags.FLAGS.split]
    print(f'{len(left_out)} left out, as {reason}: {examples}')
  for _, reason in rejected[:20]:
    print(f'Rejected: {reason}')
  if rejected:
    print(f'{len(rejected)} rejected in all: see {out / writing.REJECTED_NAME}')
    raise SystemExit(1)


def _read_sources() -> tuple[list[records.Pair], set[Path], list[str]]:
  """Returns pairs, photos that --cod10k_images leaves out, and problems."""
  everything, unwanted, problems = [], set(), []
  out = Path(flags.FLAGS.output).resolve()
  for name in (*published.DATA_SETS, 'folder'):
    directory = flags.FLAGS[name].value
    if not directory:
      continue
    if out.is_relative_to(Path(directory).resolve()):
      raise errors.UserError(
        f'--output={flags.FLAGS.output} is inside {directory}, which is not '
        'to be changed. Pass another --output.'
      )
    known = published.DATA_SETS.get(name)
    read = known.read if known else writing.read_own
    pairs = read(directory, problems)
    print(published.describe_counts(pairs, known.counts if known else {}))
    everything += pairs
    # A folder's own rows are all used, wherever they are from.
    if name == 'cod10k':
      choice = flags.FLAGS.cod10k_images
      unwanted = {
        pair.image_path
        for pair in pairs
        if not merging.choose_cod10k(pair, choice)
      }
      print(f'{len(unwanted):,} of COD10K left out (--cod10k_images={choice})')
  if not everything:
    raise errors.UserError(
      'Pass at least one of --p3m, --cod10k, --people, --folder.'
    )
  return everything, unwanted, problems


if __name__ == '__main__':
  for name, title in (
    ('p3m', 'P3M-10k'),
    ('cod10k', 'COD10K-v3'),
    ('people', 'People Segmentation'),
    ('folder', 'photos and masks of your own'),
  ):
    cli.define_path(name, None, f'Folder of {title}.')
  cli.define_path(
    'output', None, 'Folder to write to.', short='out', required=True
  )
  flags.DEFINE_string(
    'size', '', 'Longest side, or HEIGHTxWIDTH; by default sizes are kept.'
  )
  flags.DEFINE_enum(
    'cod10k_images',
    'cam',
    merging.COD10K_CHOICES,
    'Photos with a camouflaged object; also empty backgrounds; or also those '
    'that show an object with an empty mask, as the Keras project does.',
  )
  flags.DEFINE_enum(
    'split',
    'official',
    list(merging.SPLITS),
    "The publishers' splits, or the Keras project's at random, which trains "
    'on test sets: nothing trained so may be scored on them.',
  )
  flags.DEFINE_float(
    'validation_share',
    None,
    f'Share of the pairs for validation; by default {merging.SHARES}.',
    lower_bound=0.001,
    upper_bound=0.999,
  )
  flags.DEFINE_bool(
    'allow_empty_masks', False, 'Accept photos without foreground.'
  )
  flags.DEFINE_list(
    'invert', [], 'Sources whose masks are white for the background.'
  )
  cli.run(main, __name__)
