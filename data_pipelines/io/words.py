"""Words of messages."""


def count(number: int, noun: str) -> str:
  """Returns '1 photo', '2 photos', '3,000 photos'."""
  return f'{number:,} {noun}{"" if number == 1 else "s"}'
