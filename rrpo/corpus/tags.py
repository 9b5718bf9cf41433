"""Special tags: placeholders of a prefix without a target emotion or speaker, and the neutral class. Imports no torch."""

NO_EMOTION = "no-emotion"
"""Null emotion tag, l(0) of guidance; known to policies trained with tag dropout."""
NO_SPEAKER = "no-speaker"
"""Null speaker tag."""
NEUTRAL = "neutral"
"""The class with which soft labels and measures of intensity compare an emotion."""
