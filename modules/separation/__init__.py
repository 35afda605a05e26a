"""Speech separation: networks that take a mixture of speakers apart, and the measure that trains them.

Waveforms are (batch, time), several speakers' (batch, time, speakers). Encoded signals are (batch, channels, frames),
as in the published models.
"""
