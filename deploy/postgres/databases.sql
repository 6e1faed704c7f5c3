-- One database for each service: none reads the tables of another.
CREATE DATABASE modelyard_governance;
CREATE DATABASE modelyard_catalog;
CREATE DATABASE modelyard_artifact;
CREATE DATABASE modelyard_inference;
