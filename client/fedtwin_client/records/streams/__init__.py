"""Messages of an MQTT broker, into events."""
