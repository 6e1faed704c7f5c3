"""Webhooks: events as signed CloudEvents to addresses outside, at least once, without one receiver hurting another."""
