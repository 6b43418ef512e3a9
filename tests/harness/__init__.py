"""What the tests share: small target programs, the engine under test, flavours, skips. Not part of the package."""
