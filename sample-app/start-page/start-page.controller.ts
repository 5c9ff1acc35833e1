import { readFile } from 'node:fs/promises';
import { Controller, Get, Header, NotFoundException, Param, UseGuards } from '@nestjs/common';
import { ApiExcludeController } from '@nestjs/swagger';
import { SEEDED_CLIENTS } from '../database/seeds.js';
import { OwnHosts } from './own-hosts.js';

const PUBLIC = new URL('./public/', import.meta.url);
const SCRIPTS: readonly string[] = ['page.js', 'api.js', 'log.js'];

/** The page at `/`, on which a person plays the clients. It is plain files: nothing is built, and nothing comes from elsewhere. */
@Controller()
@UseGuards(OwnHosts)
@ApiExcludeController()
export class StartPageController {
  @Get()
  @Header('Content-Type', 'text/html; charset=utf-8')
  page(): Promise<string> {
    return file('index.html');
  }

  @Get('start-page/style.css')
  @Header('Content-Type', 'text/css; charset=utf-8')
  style(): Promise<string> {
    return file('style.css');
  }

  /** The secrets are printed at every start, and only this machine is served. */
  @Get('start-page/clients.json')
  clients(): typeof SEEDED_CLIENTS {
    return SEEDED_CLIENTS;
  }

  @Get('start-page/:script')
  @Header('Content-Type', 'text/javascript; charset=utf-8')
  script(@Param('script') name: string): Promise<string> {
    if (!SCRIPTS.includes(name)) throw new NotFoundException();
    return file(name);
  }
}

function file(name: string): Promise<string> {
  return readFile(new URL(name, PUBLIC), 'utf8');
}
