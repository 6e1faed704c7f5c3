"""The whole of Modelyard on one machine: embedded PostgreSQL, the services, Envoy, under one supervisor."""
