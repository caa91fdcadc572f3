//! stub
mod document;
