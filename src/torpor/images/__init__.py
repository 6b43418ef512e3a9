"""Images: bytes to messages and back, and the stores that hold them.  Runs anywhere; knows neither kernel nor tasks."""
