"""The engine: actions in, outcomes out; knows neither Gymnasium nor a policy."""
