"""Tags with a meaning of their own: what stands in a prefix where no emotion or no speaker is asked for. Imports no torch."""

NO_EMOTION = "no-emotion"
"""In the emotion's place, l(0) of guidance; known to policies that were trained with tag dropout."""
NO_SPEAKER = "no-speaker"
"""In the speaker's place."""
NEUTRAL = "neutral"
"""The class that soft labels and measures of intensity set against an emotion."""
